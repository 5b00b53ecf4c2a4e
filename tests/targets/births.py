"""A target whose processes come in ways that are easily missed: `births.py HOW FOLDER`.

Calls of `work` and of the functions of modules that are written into FOLDER and imported late go on until a file `stop`
is there. A file NAME in FOLDER is what the words below wait for.

exec      at `fork`, a child is forked, which waits for `exec`, and starts this file anew, in which `late_a.work` is called
fork      at `fork`, `late_a` is imported and a child is forked, at once
siblings  at `fork`, two children are forked and import `late_a` and `late_b`, each in another order, the second at `second`
vfork     at `import`, `late_a` is imported and a child is started that must first open the pipe FOLDER/pipe: the thread
          that starts it cannot be stopped until then
"""

import importlib
import os
import sys
import time

FUNCTION = """
def work(%s):
    return %s
"""


def work(n):
    return n


def there(name):
    return os.path.exists(os.path.join(FOLDER, name))


def wait(name):
    while not there(name):
        work(0)
        time.sleep(0.005)


def call_until_stop(*functions):
    n = 0
    while not there("stop"):
        n += 1
        for function in functions:
            assert function(n) == n
        time.sleep(0.005)


def late(name):
    return importlib.import_module(name).work


def in_child(job):
    child = os.fork()
    if child == 0:
        try:
            job()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def exec_():
    def job():
        wait("exec")
        os.execv(sys.executable, [sys.executable, __file__, "anew", FOLDER])

    wait("fork")
    return [in_child(job)], [work]


def fork():
    wait("fork")
    function = late("late_a")
    return [in_child(lambda: call_until_stop(work, function))], [work, function]


def siblings():
    def job(first, second):
        def run():
            functions = [late(first)]
            wait("second")
            functions.append(late(second))
            call_until_stop(*functions)

        return run

    wait("fork")
    return [in_child(job("late_a", "late_b")), in_child(job("late_b", "late_a"))], [work]


def vfork():
    wait("import")
    function = late("late_a")
    pipe = (os.POSIX_SPAWN_OPEN, 0, os.path.join(FOLDER, "pipe"), os.O_RDONLY, 0)
    return [os.posix_spawn("/bin/true", ["true"], os.environ, file_actions=[pipe])], [work, function]


def main(how):
    sys.path.insert(0, FOLDER)
    if how == "anew":
        call_until_stop(late("late_a"))
        return
    for name, argument in [("late_a", "apple"), ("late_b", "pear")]:
        with open(os.path.join(FOLDER, name + ".py"), "w") as file:
            file.write(FUNCTION % (argument, argument))
    os.mkfifo(os.path.join(FOLDER, "pipe"))
    children, functions = {"exec": exec_, "fork": fork, "siblings": siblings, "vfork": vfork}[how]()
    with open(os.path.join(FOLDER, "children.part"), "w") as file:
        file.write(" ".join(map(str, children)))
    os.replace(os.path.join(FOLDER, "children.part"), os.path.join(FOLDER, "children"))
    call_until_stop(*functions)
    failed = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(failed))


if __name__ == "__main__":
    FOLDER = sys.argv[2]
    main(sys.argv[1])
