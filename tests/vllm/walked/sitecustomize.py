"""Has vLLM's model runner call the CUDA driver, or a stand-in for it, where there is none: for walks of its stack.

Active only when WALKED_LIBRARY names the library. Put this folder on PYTHONPATH. Needs Python 3.12+ (sys.monitoring,
PEP 669). Nothing in vLLM is patched, and its frames are its own: the driver is called from the interpreter's own
callbacks, at the begin of GPUModelRunner._model_forward (three kernels), and at the end of sample_tokens (waits).

  WALKED_OUT   folder for one file per process (PID.jsonl): a line for each forward pass of a step, with what its
               scheduler_output held
"""
import os
import sys


def install(library, folder):
    import ctypes
    import json

    cuda = ctypes.CDLL(library)
    pointer = ctypes.c_void_p
    cuda.cuLaunchKernel.argtypes = [pointer] + [ctypes.c_uint] * 7 + [pointer] * 3
    cuda.cuStreamSynchronize.argtypes = [pointer]
    monitoring = sys.monitoring
    tool = 3

    def scheduled(frame):
        """The batch of the step that this frame is in, if it is in one."""
        while frame is not None:
            if frame.f_code.co_qualname == "GPUModelRunner.execute_model":
                return frame.f_locals["scheduler_output"]
            frame = frame.f_back
        return None

    def started(code, offset):
        if code.co_qualname != "GPUModelRunner._model_forward":
            return monitoring.DISABLE
        output = scheduled(sys._getframe(1))
        if output is not None:
            tokens, requests = output.total_num_scheduled_tokens, len(output.num_scheduled_tokens)
            del output
            with open(f"{folder}/{os.getpid()}.jsonl", "a") as out:
                out.write(json.dumps({"tokens": tokens, "requests": requests}) + "\n")
        for _ in range(3):
            cuda.cuLaunchKernel(1, 1, 1, 1, 1, 1, 1, 0, None, None, None)
        return None

    def returned(code, offset, value):
        if code.co_qualname != "GPUModelRunner.sample_tokens":
            return monitoring.DISABLE
        cuda.cuStreamSynchronize(None)
        return None

    monitoring.use_tool_id(tool, "walked")
    events = monitoring.events
    monitoring.register_callback(tool, events.PY_START, started)
    monitoring.register_callback(tool, events.PY_RETURN, returned)
    monitoring.set_events(tool, events.PY_START | events.PY_RETURN)


if os.environ.get("WALKED_LIBRARY"):
    install(os.environ["WALKED_LIBRARY"], os.environ["WALKED_OUT"])
