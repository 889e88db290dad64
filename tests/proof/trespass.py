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
_CHANGING = {"os.rename": 2, "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2}
"""Audit event → how many of its first arguments are paths."""


def watch(allowed: Path, tell: Callable[[str], None]) -> None:
    """From now on and for good: `tell` is given each path outside `allowed` that is written to or changed."""
    inside = f"{allowed.resolve()}/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            paths = [path] if isinstance(flags, int) and flags & _WRITING else []
        elif event in _CHANGING:
            paths = list(arguments[: _CHANGING[event]])
        else:
            return
        for path in paths:
            if isinstance(path, int) or path is None:
                continue
            where = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - Path.resolve() would raise events itself
            if not where.startswith(inside) and where != inside[:-1] and where not in _NO_PLACE:
                tell(f"{event} {where}")

    sys.addaudithook(hook)
