"""What a finished job has to show: its record, its page, and a small picture of its map, each read once while it stays.

Nothing is written: the folder of a job belongs to the node's other rooms, and may go at any moment.
"""

from __future__ import annotations

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from scipy import ndimage

from dicom_node.encode.quantity import QSM

SIDE = 176
"""Pixels of the thumbnail: twice what the page shows it at, for fine screens."""
MOST_KEPT = 200
"""Jobs whose records and thumbnails are kept in memory, about 20 kB each."""


@dataclass(frozen=True)
class Result:
    """record: report.json, less its lists of UIDs.  thumbnail: PNG, None where no series can be read."""

    record: dict[str, Any]
    thumbnail: bytes | None

    @property
    def grade(self) -> str:
        """ "good", "review", "failed", or "" for a record that has none."""
        return str(self.record.get("grade", {}).get("grade", ""))


class Results:
    """May be asked from any thread."""

    def __init__(self, jobs_folder: Path) -> None:
        self._jobs_folder = jobs_folder
        self._kept: OrderedDict[int, tuple[int, Result]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, job: int) -> Result | None:
        """None if there is no finished result (any more)."""
        folder = self._jobs_folder / str(job) / "result"
        try:
            written = (folder / "report.json").stat().st_mtime_ns
            with self._lock:
                kept = self._kept.get(job)
            if kept is None or kept[0] != written:
                kept = written, _read(folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        with self._lock:
            self._kept[job] = kept
            self._kept.move_to_end(job)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return kept[1]

    def page(self, job: int) -> bytes | None:
        """map.png, the page for people."""
        try:
            return (self._jobs_folder / str(job) / "result" / "map.png").read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


def _read(folder: Path) -> Result:
    record = json.loads((folder / "report.json").read_bytes())
    record.get("source", {}).pop("sop_instance_uids", None)
    record["outputs"] = _series(record.get("outputs", []))
    return Result(record, _unless_unreadable(lambda: thumbnail(folder / "dicom")))


def _series(outputs: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The outputs by series: description and how many objects."""
    found: dict[str, dict[str, Any]] = {}
    for output in outputs:
        series = found.setdefault(
            output["series_instance_uid"], {"description": output["series_description"], "objects": 0}
        )
        series["objects"] += 1
    return list(found.values())


def _unless_unreadable(make: Callable[[], bytes | None]) -> bytes | None:
    try:
        return make()
    except (OSError, InvalidDicomError, AttributeError, ValueError, TypeError, LookupError, RuntimeError):
        return None  # that there is no picture is shown, and no reason to show no figures


def thumbnail(images: Path) -> bytes | None:
    """The middle slice of the QSM series in its window, black around the head, as PNG; None if there is no series."""
    slices = sorted(images.glob("??-qsm-*.dcm"))
    if not slices:
        return None
    middle = dcmread(slices[len(slices) // 2])
    chi = middle.pixel_array * float(middle.RescaleSlope) + float(middle.RescaleIntercept)
    low, high = QSM.window
    grey = np.clip((chi - low) / (high - low) * 255, 0, 255)
    grey[_around(chi == 0)] = 0
    down, across = (float(spacing) for spacing in middle.PixelSpacing)
    tall, wide = chi.shape[0] * down, chi.shape[1] * across
    scale = SIDE / max(tall, wide)
    picture = Image.fromarray(grey.astype(np.uint8)).resize(
        (max(1, round(wide * scale)), max(1, round(tall * scale))), Image.Resampling.LANCZOS
    )
    square = Image.new("L", (SIDE, SIDE))
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    encoded = io.BytesIO()
    square.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


def _around(empty: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of it hangs together with the border: there is no value, while inside 0 ppb is one."""
    border = np.ones_like(empty)
    border[1:-1, 1:-1] = False
    return np.asarray(ndimage.binary_propagation(border & empty, mask=empty))
