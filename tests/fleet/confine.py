#!/usr/bin/env python3
"""Runs a command as a systemd unit would confine it, where no systemd runs: the same capabilities, system calls, and
view of the file system.

  confine.py [--without CAP]... UNIT [DROP-IN]... -- COMMAND...

Done here: CapabilityBoundingSet, NoNewPrivileges, SystemCallFilter (the sets are those of `systemd-analyze
syscall-filter`) with SystemCallErrorNumber, RestrictAddressFamilies, RestrictNamespaces, ProtectSystem=strict with
StateDirectory, ProtectHome, PrivateTmp, PrivateDevices, ProtectKernelTunables, ProtectControlGroups, ProtectKernelModules,
ProtectKernelLogs, UMask. Any other setting that confines is named and ends it, so that none is left out unseen; UNDONE
has those that are known not to be done here.
"""
import ctypes
import errno
import os
import platform
import re
import struct
import subprocess
import sys

UNDONE = {
    "KeyringMode", "LockPersonality", "ProtectClock", "ProtectHostname", "RestrictRealtime", "RestrictSUIDSGID",
    "SystemCallArchitectures",
}
CONFINES = re.compile(r"^(Capab|Ambient|NoNew|Protect|Private|Restrict|SystemCall|Lock|Keyring|MemoryDeny|ReadOnly|Inacc|UMask)")
CAPABILITIES = """chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct
sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap
mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore""".split()
FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10}
HEADER = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"

libc = ctypes.CDLL(None, use_errno=True)


def check(done, what):
    if done < 0:
        sys.exit(f"confine: {what}: {os.strerror(ctypes.get_errno())}")


def settings(paths):
    """The unit's settings that confine: name to all of its values."""
    found = {}
    for path in paths:
        with open(path) as file:
            lines = file.read().splitlines()
        for line in lines:
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#") and (CONFINES.match(name) or name == "StateDirectory"):
                found.setdefault(name, []).extend(value.split())
    return found


def numbers():
    """System calls by name."""
    with open(HEADER) as file:
        return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", file.read())}


def allowed(words):
    """The system calls that a filter allows, sets resolved."""
    calls = set()
    for word in words:
        if word.startswith("@"):
            text = subprocess.run(["systemd-analyze", "syscall-filter", word], check=True, capture_output=True, text=True)
            lines = [line.strip() for line in text.stdout.splitlines()[1:]]
            calls |= allowed([line for line in lines if line and not line.startswith("#")])
        else:
            calls.add(word)
    return calls


def program(calls, families):
    """The filter, as classic BPF: what is not allowed gives EPERM."""
    known = numbers()
    # systemd always allows these, so that a filter cannot keep the command from being started.
    calls = calls | {"execve", "exit", "exit_group", "rt_sigreturn", "getrlimit", "brk", "mmap", "mprotect"}
    wanted = sorted(known[name] for name in calls if name in known)
    load, jump, give = (lambda at: (0x20, 0, 0, at)), (lambda to, yes, no: (0x15, yes, no, to)), (lambda what: (0x06, 0, 0, what))
    allow, deny = give(0x7FFF0000), give(0x00050000 | errno.EPERM)
    code = [load(4), jump(0xC000003E, 1, 0), deny, load(0)]
    for name, denied in (("unshare", None), ("setns", None)):
        code += [jump(known[name], 0, 1), deny]
    # clone3 cannot be looked into: it is said not to be there, and clone is used.
    code += [jump(known["clone3"], 0, 1), give(0x00050000 | errno.ENOSYS)]
    code += [jump(known["clone"], 0, 4), load(16), (0x45, 0, 1, 0x7E020000), deny, allow]
    if families:
        code += [jump(known["socket"], 0, 2 * len(families) + 2), load(16)]
        for family in families:
            code += [jump(FAMILIES[family], 0, 1), allow]
        code += [deny]
    for number in wanted:
        code += [jump(number, 0, 1), allow]
    code += [deny]
    return b"".join(struct.pack("<HBBI", *one) for one in code)


def mount(source, target, kind, flags=0, data=None):
    encoded = [text.encode() if text is not None else None for text in (source, target, kind)]
    check(libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() if data else None), f"mount on {target}")


def read_only(path, is_so=True, recursive=True):
    value = struct.pack("<QQQQ", 1 if is_so else 0, 0 if is_so else 1, 0, 0)
    flags = 0x8000 if recursive else 0
    check(libc.syscall(442, -100, path.encode(), flags, value, len(value)), f"mount_setattr on {path}")


def files(unit):
    """The view of the file system."""
    bind, private, rec = 0x1000, 1 << 18, 0x4000
    check(libc.unshare(0x00020000), "unshare")
    mount(None, "/", None, private | rec)
    writable = ["/proc", *(f"/var/lib/{name}" for name in unit.get("StateDirectory", []))]
    for path in writable[1:]:
        os.makedirs(path, mode=0o700, exist_ok=True)
        mount(path, path, None, bind)
    if unit.get("PrivateDevices") == ["yes"]:
        # Made aside, and then put over /dev.
        mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755,size=64k")
        for name in ("null", "zero", "full", "random", "urandom", "tty"):
            open(f"/mnt/{name}", "w").close()
            mount(f"/dev/{name}", f"/mnt/{name}", None, bind)
        mount("/mnt", "/dev", None, bind | rec)
        check(libc.umount2(b"/mnt", 2), "umount")
    if unit.get("ProtectSystem") == ["strict"]:
        read_only("/")
        for path in writable:
            read_only(path, False)
    if unit.get("ProtectKernelTunables") == ["yes"]:
        mount("/proc/sys", "/proc/sys", None, bind)
        read_only("/proc/sys")
        read_only("/sys")
    if unit.get("ProtectHome") == ["yes"]:
        for path in ("/home", "/root", "/run/user"):
            if os.path.isdir(path):
                mount("tmpfs", path, "tmpfs", 1, "mode=000,size=4k")
    if unit.get("ProtectKernelModules") == ["yes"] and os.path.isdir("/lib/modules"):
        mount("tmpfs", "/lib/modules", "tmpfs", 1, "mode=000,size=4k")
    if unit.get("ProtectKernelLogs") == ["yes"]:
        mount("/dev/null", "/proc/kmsg", None, bind)
    if unit.get("PrivateTmp") == ["yes"]:
        for path in ("/tmp", "/var/tmp"):
            mount("tmpfs", path, "tmpfs", 0, "mode=1777,size=64m")


def main():
    arguments = sys.argv[1:]
    without = set()
    while arguments[:1] == ["--without"]:
        without.add(arguments[1].lower().removeprefix("cap_"))
        arguments = arguments[2:]
    at = arguments.index("--")
    unit, command = settings(arguments[:at]), arguments[at + 1:]
    done = {
        "CapabilityBoundingSet", "NoNewPrivileges", "SystemCallFilter", "SystemCallErrorNumber", "RestrictAddressFamilies",
        "RestrictNamespaces", "ProtectSystem", "StateDirectory", "StateDirectoryMode", "ProtectHome", "PrivateTmp",
        "PrivateDevices", "ProtectKernelTunables", "ProtectControlGroups", "ProtectKernelModules", "ProtectKernelLogs", "UMask",
    }
    unknown = set(unit) - done - UNDONE
    if unknown or platform.machine() != "x86_64":
        sys.exit(f"confine: not known: {sorted(unknown)} on {platform.machine()}")
    code = program(allowed(unit["SystemCallFilter"]), unit.get("RestrictAddressFamilies", []))
    files(unit)
    os.chdir("/")
    os.umask(int(unit["UMask"][0], 8))
    keep = {name.lower().removeprefix("cap_") for name in unit["CapabilityBoundingSet"]} - without
    # ProtectKernelLogs, ProtectClock and the like take these away too; none is in the set.
    assert keep <= set(CAPABILITIES), keep
    for number, name in enumerate(CAPABILITIES):
        if name not in keep:
            check(libc.prctl(24, number, 0, 0, 0), f"dropping {name}")
    check(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    buffer = ctypes.create_string_buffer(code, len(code))
    filter = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    check(libc.syscall(317, 1, 0, filter), "seccomp")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
