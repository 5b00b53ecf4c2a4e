"""A wedged server in small, for `where`: an engine that waits for its worker, which waits in a synchronise of the
(stand-in) CUDA driver.

Usage: wedged.py LIBCUDA. Says `ready PID_OF_WORKER`, launches a graph and is stuck once a line has come. Its functions say
that they are from vLLM's files.
"""

import ctypes
import multiprocessing
import sys
import threading

EXECUTOR = """
class MultiprocExecutor:
    def __init__(self, connection):
        self.connection = connection

    def collective_rpc(self, method):
        def get_response():
            return self.connection.recv()
        self.connection.send(method)
        return get_response()


class WorkerProc:
    def __init__(self, connection, runner):
        self.connection = connection
        self.runner = runner

    def worker_busy_loop(self):
        while True:
            method = self.connection.recv()
            self.connection.send(getattr(self.runner, method)(None))
"""

RUNNER = """
class GPUModelRunner:
    def __init__(self, cuda):
        self.cuda = cuda

    def launch(self, _):
        self.cuda.cuGraphLaunch(self.graph, None)

    def execute_model(self, scheduler_output, intermediate_tensors=None):
        self.cuda.cuStreamSynchronize(None)
"""


def of_vllm(file, source):
    names = {}
    exec(compile(source, f"/opt/venv/vllm/v1/{file}", "exec"), names)
    return names


def title(text):
    # PR_SET_NAME
    ctypes.CDLL(None).prctl(15, text, 0, 0, 0)


def spin():
    while True:
        pass


def worker(connection, library):
    title(b"VLLM::Worker_TP0")
    # PR_SET_PDEATHSIG, SIGKILL: it goes with the engine, whatever ends that.
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    cuda = ctypes.CDLL(library)
    pointer = ctypes.c_void_p
    cuda.cuGraphLaunch.argtypes = [pointer, pointer]
    cuda.cuStreamSynchronize.argtypes = [pointer]
    runner = of_vllm("worker/gpu_model_runner.py", RUNNER)["GPUModelRunner"](cuda)
    graph, runner.graph = pointer(), pointer()
    assert cuda.cuStreamBeginCapture_v2(None, 0) == 0
    assert cuda.cuStreamEndCapture(None, ctypes.byref(graph)) == 0
    assert cuda.cuGraphInstantiateWithFlags(ctypes.byref(runner.graph), graph, ctypes.c_ulonglong(0)) == 0
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=lock.acquire, name="waits", daemon=True).start()
    threading.Thread(target=spin, name="spins", daemon=True).start()
    of_vllm("executor/multiproc_executor.py", EXECUTOR)["WorkerProc"](connection, runner).worker_busy_loop()


def main():
    title(b"VLLM::EngineCore")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=worker, args=(theirs, sys.argv[1]), daemon=True)
    child.start()
    executor = of_vllm("executor/multiproc_executor.py", EXECUTOR)["MultiprocExecutor"](ours)
    executor.collective_rpc("launch")
    print("ready", child.pid, flush=True)
    sys.stdin.readline()
    executor.collective_rpc("launch")
    executor.collective_rpc("execute_model")


main()
