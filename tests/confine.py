"""Runs a command under the system calls that a unit of systemd leaves it: as far as no root is needed.

    python -m tests.confine systemd/qsm-node.service COMMAND…

systemd-analyze expands the groups of SystemCallFilter=, libseccomp2, on which systemd itself leans, makes the filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
"""SCMP_ACT_ALLOW, SCMP_ACT_ERRNO (seccomp.h of libseccomp)."""


def settings_of(unit: Path) -> dict[str, list[str]]:
    """Each setting below [Service] with its values, in order."""
    section = unit.read_text(encoding="utf-8").partition("[Service]")[2].partition("[Install]")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", section):
        found.setdefault(name, []).append(value)
    return found


def allowed_calls(filters: list[str]) -> set[str]:
    """By the rules of SystemCallFilter= in systemd.exec(5), for a list that begins with what is allowed."""
    allowed: set[str] = set()
    for line in filters:
        named = {call for name in line.lstrip("~").split() for call in _expanded(name)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed | _expanded("@default")


def _expanded(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True)
    lines = [line.strip() for line in listed.stdout.splitlines()[1:]]
    return {call for line in lines if line and not line.startswith("#") for call in _expanded(line)}


def confine(unit: Path) -> None:
    """This process and all that it becomes.  Raises OSError where the kernel does not take the filter."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(_ERRNO | errno.EPERM))
    for call in allowed_calls(settings_of(unit)["SystemCallFilter"]):
        number = library.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # others are of another architecture
            library.seccomp_rule_add(rules, _ALLOW, number, 0)
    if failed := library.seccomp_load(rules):
        raise OSError(-failed, os.strerror(-failed))


if __name__ == "__main__":
    confine(Path(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
