"""Alone: one process serves a state folder, and says in its lock file who it is."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dicom_node.errors import NodeError

LOCK_FILE = "node.lock"
LOCK_PATIENCE, LOCK_PAUSE = 1.0, 0.05
"""Seconds to wait for the lock, and between two tries: `status` holds it for the moment in which it looks."""


class AlreadyRunning(NodeError):
    """Another process serves this state folder."""


def _has_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alone_in(state_folder: Path) -> Iterator[Callable[[dict[str, float | str]], None]]:
    """Holds the lock of a state folder, which the system frees with the process, and tells in it who serves.

    Raises AlreadyRunning.
    """
    state_folder.mkdir(parents=True, exist_ok=True)
    with (state_folder / LOCK_FILE).open("a+") as lock:
        deadline = time.monotonic() + LOCK_PATIENCE
        while not _has_locked(lock):
            if time.monotonic() > deadline:
                raise AlreadyRunning(
                    f"another process serves {state_folder}: stop it, or give this node another state_folder"
                )
            time.sleep(LOCK_PAUSE)

        def tell(content: dict[str, float | str]) -> None:
            lock.truncate(0)
            lock.write(json.dumps(content) + "\n")
            lock.flush()

        yield tell
        lock.truncate(0)


def process(lock_file: Path) -> dict[str, Any]:
    """Who serves the folder, if anybody holds its lock."""
    if not lock_file.is_file():
        return {"running": False}
    with lock_file.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            content = lock.read().strip()
            return {"running": True, "pid": None, "port": None} | (json.loads(content) if content else {})
    return {"running": False}
