"""What the tracer wants: the page's code and shape, and the methods.

A JSON object:

    code                 the page's code, in base 64
    arch                 machine that the code is for, as `uname -m` says it
    magic, version       head of the data
    code_size, data_size, slot_offset, slot_stride, slots
                         shape of the page
    helper_stub_offset, stub_stride
                         where the entries for C callables begin, and how far apart they are
    methods              list of {"module": ..., "qualname": ...}
    pythons              optional list of versions ("3.11"); in others the helper does nothing
    report               optional file to which one JSON line is appended for each method, bound or not
    resident             optional: true where the helper shall wait for more from the tracer
    sample               optional {"every": N, "routers": [...]}: count every Nth call of routers (see `routing`), each
                         {"module": ..., "qualname": ..., "ids": "mapped" or "result"}
"""

import binascii
import json
import os
import sys

NUMBERS = (
    "magic version code_size data_size slot_offset slot_stride slots helper_stub_offset stub_stride".split()
)


class Plan:
    """A plan that has been checked."""

    def __init__(self, text):
        plan = json.loads(text)
        self.code = binascii.a2b_base64(plan["code"])
        self.arch = plan["arch"]
        self.pythons = plan.get("pythons")
        self.report_path = plan.get("report")
        self.resident = bool(plan.get("resident"))
        self.sample = plan.get("sample")
        # What was said last of each method.
        self.said = {}
        for name in NUMBERS:
            value = plan[name]
            if not isinstance(value, int) or not 0 <= value < 1 << 64:
                raise ValueError(name)
            setattr(self, name, value)
        if self.slot_offset + self.slots * self.slot_stride > self.data_size:
            raise ValueError("data_size")
        if self.helper_stub_offset + self.slots * self.stub_stride > self.code_size:
            raise ValueError("code_size")
        # Names of methods by module.
        self.methods = {}
        for method in plan["methods"]:
            self.methods.setdefault(str(method["module"]), []).append(str(method["qualname"]))

    def wants_this_python(self):
        """Whether this interpreter is one for the helper."""
        return self.pythons is None or "%d.%d" % sys.version_info[:2] in self.pythons

    def report(self, **line):
        """Tells the tracer. Best effort: a full disk is not the program's business."""
        key = line["module"], line["qualname"]
        news = self.said.get(key) != line
        self.said[key] = line
        if self.report_path is None or not news:
            return
        try:
            fd = os.open(self.report_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, json.dumps(dict(line, pid=os.getpid())).encode() + b"\n")
            finally:
                os.close(fd)
        except OSError:
            pass


def read(path):
    """The plan in a file."""
    with open(path, encoding="utf-8") as file:
        return Plan(file.read())
