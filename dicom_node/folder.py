"""A folder of files: which of them are DICOM objects, and what their headers say.  Loads nothing of the physics."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

from pydicom.misc import is_dicom

from dicom_node.convert import describe
from dicom_node.errors import UnreadableObject
from dicom_node.model import Instance

RECEIVED = 0.0
"""Everything is there at once.  The times of files tell when they were copied, or what a wrong clock said."""


def read(folder: Path, part: int = 0, parts: int = 1) -> list[Instance]:
    """Every DICOM object below a folder, whatever its name; other files are passed over.

    part: of so many `parts`, the first is 0; a file's name says which is its own, whatever lies beside it.

    What the file system refuses to read, what begins as DICOM and is damaged, and what this software fails at is named
    on stderr: it may be a part of one.
    """
    instances = []
    for path in sorted(folder.rglob("*")):
        if zlib.crc32(os.fsencode(path.relative_to(folder))) % parts != part:
            continue
        try:
            if path.is_file():
                instances.append(describe(path, RECEIVED, ""))
        except OSError as error:
            _say(f"{path}: passed over: {error.strerror}")
        except UnreadableObject as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:  # pydicom's own have none
                _say(f"{path}: passed over: {error.__cause__.strerror}")
            elif path.name != "DICOMDIR" and is_dicom(path):
                _say(f"{path}: passed over: damaged or no image: {error}")
        except Exception as error:  # noqa: BLE001 - one hostile header must not stop the others; its words may name people
            _say(f"{path}: passed over: an error of this software ({type(error).__name__}); please report it")
    return instances


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
