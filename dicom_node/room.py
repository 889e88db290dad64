"""Room on the disk: the node stops taking while there is still enough of it to finish what it has taken.

Three marks, in the order in which a disk that fills reaches them: below `[retention] free_bytes` what destinations hold
and what is left alone goes before its time (`dicom_node.retention`); below `minimum_free_bytes` senders are told
0xA700; below half of that no job is begun.  The rest is for what runs and for the database.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from dicom_node.settings import RESUME, Retention

JOBS = 0.5
"""The part of the mark below which no job is begun: finishing jobs is what makes room."""

log = structlog.get_logger(__name__)


def free_bytes(folder: Path) -> int:
    """What a process without privileges may still write into the file system of a folder."""
    file_system = os.statvfs(folder)
    return file_system.f_bavail * file_system.f_frsize


def more_room(retention: Retention) -> str:
    """What to do about a disk that fills, with the settings by which anything is kept for ever."""
    for_ever = [name for name in ("results", "sources", "left_alone", "unused") if not getattr(retention, name)]
    by = f"; [retention] {', '.join(f'{name} = 0' for name in for_ever)} keeps for ever: give days" if for_ever else ""
    return f"make room, or add a disk{by}"


def is_full(error: BaseException) -> bool:
    """Whether something failed for want of room, or of quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class Room:
    """The room of one folder.  minimum: bytes that intake leaves free.  Safe to ask from many threads."""

    def __init__(self, folder: Path, minimum: int, free: Callable[[Path], int] = free_bytes) -> None:
        self._folder = folder
        self._minimum = minimum
        self._free = free
        self._lock = threading.Lock()
        self._closed = False
        self._holds_jobs = False

    def refusal(self, size: int = 0) -> str:
        """Why an object of so many bytes cannot be taken, "" if it can.  Tells in the log when that changes."""
        free = self._free(self._folder)
        with self._lock:
            needed = int(self._minimum * RESUME) if self._closed else self._minimum
            closed, before = free < needed, self._closed
            self._closed = closed
        if closed and not before:
            log.error(
                "disk_nearly_full", free_bytes=free, minimum_free_bytes=self._minimum, do="make room; senders wait"
            )
        if before and not closed:
            log.info("disk_has_room_again", free_bytes=free)
        if closed or free < size + self._minimum:
            return (
                f"{free} bytes are free in {self._folder}; {max(needed, size + self._minimum)} are needed to take "
                f"{size} more: make room"
            )
        return ""

    def for_jobs(self) -> bool:
        """Whether a job may be begun.  Tells in the log when that changes."""
        free = self._free(self._folder)
        holds = free < self._minimum * JOBS
        if holds != self._holds_jobs:
            self._holds_jobs = holds
            if holds:
                log.error("no_room_for_jobs", free_bytes=free, needed=int(self._minimum * JOBS), do="make room")
            else:
                log.info("room_for_jobs_again", free_bytes=free)
        return not holds
