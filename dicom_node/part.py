"""A data set while it arrives: in memory as long as it is small, beyond that in a file of the spool's receiving/.

So the memory that an object takes does not grow with it, and most images, repeated ones among them, cost the disk
nothing before they are known to be wanted.  What is refused is written once more, to quarantine.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.errors import NodeError
from dicom_node.structure import Encoded

IN_MEMORY = 2**20
"""Bytes; most single images of MR are smaller, every enhanced object is larger."""
ROOM_EVERY = 2**24
"""Bytes of a large object between two looks whether the disk has room for more."""


_numbers = itertools.count()


def part_in(folder: Path) -> Path:
    """A file that nobody else in this process writes; those of earlier ones were swept."""
    return folder / f"{next(_numbers)}.part"


class Part:
    """One data set.  meta: makes preamble and File Meta, which go before it when it becomes a file here.

    require_room: raises a NodeError when the disk has no room for so many bytes.
    What goes wrong with the disk is kept in `failure` instead of raised: the rest of the object is still on its way and
    has to be heard out before anything can be answered.
    """

    def __init__(self, folder: Path, meta: Callable[[], bytes], require_room: Callable[[int], None]) -> None:
        self.size = 0
        self.failure: Exception | None = None
        self.path: Path | None = None
        """The file, where there is one."""
        self._folder = folder
        self._meta = meta
        self._require_room = require_room
        self._memory = bytearray()
        self._descriptor = -1
        self._looked_at = 0

    def write(self, fragment: memoryview) -> None:
        """Takes the next fragment."""
        self.size += len(fragment)
        if self.failure is not None:
            return
        if self.path is None and self.size <= IN_MEMORY:
            self._memory += fragment
            return
        try:
            if self.path is None:
                self._open()
            if self.size - self._looked_at >= ROOM_EVERY:
                self._require_room(ROOM_EVERY)
                self._looked_at = self.size
            _write(self._descriptor, fragment)
        except (NodeError, OSError) as error:
            self.discard()
            self.failure = error

    @contextmanager
    def encoded(self) -> Iterator[Encoded]:
        """The whole data set, to look at; of a file only what is looked at comes into memory."""
        if self.path is None:
            with memoryview(self._memory).toreadonly() as view:
                yield view
            return
        with (
            mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as whole,
            whole[len(whole) - self.size :] as view,
        ):
            yield view

    def discard(self) -> None:
        """Forgets the object; its file goes, unless the spool has taken it under another name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self.path = None
        self._memory = bytearray()

    def _open(self) -> None:
        self._require_room(ROOM_EVERY)
        path = part_in(self._folder)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self.path = path
        _write(self._descriptor, self._meta())
        _write(self._descriptor, self._memory)
        self._memory = bytearray()


def _write(descriptor: int, chunk: bytes | bytearray | memoryview) -> None:
    with memoryview(chunk) as view:
        written = 0
        while written < len(view):
            written += os.write(descriptor, view[written:])
