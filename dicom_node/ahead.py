"""Headers are read by other processes while the first loads the libraries of the physics, which takes as long.

This module loads neither, so that both begin at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node import log
from dicom_node.execute import ProcessPerJob
from dicom_node.model import Instance

PATIENCE = 24 * 3600.0
"""Seconds for all headers of a folder, which may lie on a slow disk far away."""


READERS = 2
"""Processes, with a part of the files each."""


@contextmanager
def read_ahead(folder: Path, log_style: str) -> Iterator[Callable[[], list[Instance]]]:
    """Begins to read a folder; who calls what is given waits for it.  The call raises WorkerDied where a process
    was killed.
    """
    with ProcessPerJob(READERS, 1, PATIENCE, initializer=log.configure, initargs=(log_style, "warning")) as executor:
        readings = [executor.submit(_read, folder, part) for part in range(READERS)]
        try:
            yield lambda: sorted(
                (found for reading in readings for found in reading.result()), key=lambda one: one.path
            )
        finally:
            for reading in readings:
                reading.cancel()


def _read(folder: Path, part: int) -> list[Instance]:
    from dicom_node.folder import read

    return read(folder, part, READERS)
