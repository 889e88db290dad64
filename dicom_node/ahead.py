"""Headers are read by other processes while the first loads the libraries of the physics, which takes as long.

This module loads neither, so that both begin at once.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.execute import ProcessPerJob
from dicom_node.model import Instance

PATIENCE = 24 * 3600.0
"""Seconds for all headers of a folder, which may lie on a slow disk far away."""


READERS = 2
"""Processes, with a part of the files each."""


@contextmanager
def read_ahead(folder: Path) -> Iterator[Callable[[], list[Instance]]]:
    """Begins to read a folder; who calls what is given waits for it.  The call raises WorkerDied where a process
    was killed.
    """
    with ProcessPerJob(READERS, 1, PATIENCE) as executor:
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

    # pydicom quotes values where it warns and where it logs, and a value may be a name: as in `log`, which is slow to
    # load.
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    return read(folder, part, READERS)
