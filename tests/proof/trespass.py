"""Notes every file that a process opens for writing, makes, renames or removes outside the folders it may use.

By Python's audit events (PEP 578), which see every call of the interpreter and cannot be taken back: for processes that
live for one proof.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NO_PLACE = ("/dev/null", "/proc/self/oom_score_adj")
_CHANGING: dict[str, tuple[tuple[int, int], ...]] = {
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
}
"""Audit event → where among its arguments are a path and the descriptor of the folder it is relative to."""


def watch(allowed: Path, tell: Callable[[str], None]) -> None:
    """From now on and for good: `tell` is given each path outside `allowed` that is written to or changed."""
    inside = f"{allowed.resolve()}/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            touched = [(path, -1)] if isinstance(flags, int) and flags & _WRITING else []
        elif event in _CHANGING:
            touched = [(arguments[path], arguments[folder]) for path, folder in _CHANGING[event]]
        else:
            return
        for path, folder in touched:
            if isinstance(path, int) or path is None or "/__pycache__" in str(path):
                continue  # open already; the interpreter's own
            base = os.readlink(f"/proc/self/fd/{folder}") if folder not in (-1, None) else "."  # noqa: PTH115
            where = os.path.abspath(os.path.join(base, os.fsdecode(path)))  # noqa: PTH100, PTH118 - raise no event
            if not where.startswith(inside) and where != inside[:-1] and not where.startswith(_NO_PLACE):
                tell(f"{event} {where}")

    sys.addaudithook(hook)
