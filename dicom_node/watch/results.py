"""What a finished job has to show: its record, read once while it stays, its page, and a small picture of its map.

Nothing is written: the folder of a job belongs to the node's other rooms, and may go at any moment.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_KEPT = 200
"""Jobs whose records are kept in memory, about 10 kB each."""


@dataclass(frozen=True)
class Result:
    """record: report.json, less its lists of UIDs.  pictured: whether there is a thumbnail."""

    record: dict[str, Any]
    pictured: bool

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
        """The page for people."""
        return self._file(job, "map.png")

    def thumbnail(self, job: int) -> bytes | None:
        """The small picture of the map."""
        return self._file(job, "thumbnail.png")

    def _file(self, job: int, name: str) -> bytes | None:
        try:
            return (self._jobs_folder / str(job) / "result" / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


def _read(folder: Path) -> Result:
    record = json.loads((folder / "report.json").read_bytes())
    record.get("source", {}).pop("sop_instance_uids", None)
    record["outputs"] = _series(record.get("outputs", []))
    return Result(record, (folder / "thumbnail.png").exists())


def _series(outputs: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The outputs by series: description and how many objects."""
    found: dict[str, dict[str, Any]] = {}
    for output in outputs:
        series = found.setdefault(
            output["series_instance_uid"], {"description": output["series_description"], "objects": 0}
        )
        series["objects"] += 1
    return list(found.values())
