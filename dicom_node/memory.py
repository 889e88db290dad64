"""What a job will hold of the memory, and what there is: both are known before it is given to a worker.

The kernel's answer to a job that asks for too much is to kill, and not always the one that asked.  The estimate is a
straight line through measured peaks; `python -m benchmarks.memory` prints both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.model import Instance

BASE = 0.65e9
"""Bytes of an interpreter with its libraries, compiled loops and the atlas."""
PER_VOXEL = 100.0
"""Bytes: some two dozen float32 volumes, the padded ones of the transforms among them."""
PER_SAMPLE = 13.0
"""Bytes for each voxel of each echo of each coil element: magnitude and phase as float32, and a mask or two."""
MARGIN = 1.15
"""What heads and versions of libraries differ in."""

LONGEST_SHORTAGE = 86400.0
"""Seconds: what other programs have not left free in a day and a night, they will not."""

LONGEST_GAP = 600.0
"""Seconds between two looks; nobody looks while all workers are busy or the disk is full."""

GB = 1e9


@dataclass(frozen=True)
class Need:
    """bytes: at the peak.  words: of what, for people."""

    bytes: float
    words: str


@dataclass(frozen=True)
class Room:
    """In bytes.  capacity: what all jobs together can ever hold.  free: what they could hold now, if none of them ran
    yet.  words: what sets the capacity, and how to raise it.
    """

    capacity: float
    free: float
    words: str


UNBOUNDED = Room(math.inf, math.inf, "")


def need(images: Sequence[Instance]) -> Need:
    """Of one acquisition's images.

    The recipes differ by less than the margin: what all of them do (reading, unwrapping, encoding) takes the most.
    """
    frames = [(image, frame) for image in images if not image.brain_of for frame in image.frames]
    slices = len({tuple(round(one, 2) for one in frame.position) for _, frame in frames})
    echoes = len({round(frame.echo_time, 3) for _, frame in frames})
    coils = len({image.coil for image, _ in frames})
    rows, columns = max(((image.rows, image.columns) for image, _ in frames), default=(0, 0))
    voxels = rows * columns * slices
    words = f"{columns} × {rows} × {slices} voxels, {echoes} echoes" + (f", {coils} coil elements" if coils > 1 else "")
    return Need(estimate(voxels, echoes * coils), words)


def estimate(voxels: int, volumes: int) -> float:
    """Bytes at the peak.  volumes: echoes times coil elements."""
    return MARGIN * (BASE + voxels * (PER_VOXEL + PER_SAMPLE * volumes))


def room(limit_gb: float, resident: Callable[[], float], root: Path = Path("/")) -> Room:
    """limit_gb: what the site allows all jobs together, 0 for what the machine and this process' cgroup have.

    resident: bytes that the running jobs hold now, which count as free here.  root: of the file system.  Where neither
    can be read, as on another system than Linux, there is no bound.
    """
    if limit_gb:
        return Room(limit_gb * GB, limit_gb * GB, "[reconstruct] memory allows; raise it")
    held = resident()
    rooms = [Room(capacity, free + held, words) for capacity, free, words in _found(root)]
    if not rooms:
        return UNBOUNDED
    narrowest = min(rooms, key=lambda found: found.capacity)
    return Room(narrowest.capacity, min(found.free for found in rooms), narrowest.words)


class Shortages:
    """For how long jobs have had too little memory beside other programs.  A restart of the node begins anew, and so
    does a time in which nobody looked: there may have been room in it.
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[float, float, float]] = {}

    def look(self, job: int, wanted: float, free: float, now: float) -> float | None:
        """The most that was free, in bytes, once it was too little for too long; None until then, and anew then."""
        since, most, looked_at = self._found.pop(job, (now, free, now))
        if wanted <= free:
            return None
        if now - looked_at > LONGEST_GAP:
            since, most = now, free
        if now - since >= LONGEST_SHORTAGE:
            return max(most, free)
        self._found[job] = since, max(most, free), now
        return None

    def keep(self, jobs: set[int]) -> None:
        """Forgets all others: they were not looked at."""
        self._found = {job: known for job, known in self._found.items() if job in jobs}


def _found(root: Path) -> Iterator[tuple[float, float, str]]:
    """Capacity and what is free of the machine (proc_meminfo(5)) and of each cgroup this process is in (version 2, the
    kernel's Documentation/admin-guide/cgroup-v2.rst).
    """
    try:
        rows = (row.split(":", 1) for row in (root / "proc/meminfo").read_text().splitlines())
        told = {name: 1024.0 * float(value.split()[0]) for name, value in rows}
    except OSError:
        return
    yield told["MemTotal"], told["MemAvailable"], "this machine has; use a larger one"
    own = next((row[3:] for row in (root / "proc/self/cgroup").read_text().splitlines() if row[:3] == "0::"), "/")
    group = root / "sys/fs/cgroup" / own.lstrip("/")
    while group != root / "sys/fs":
        for name in ("memory.max", "memory.high"):
            limit = _number(group / name)
            if limit is not None:
                free = max(0.0, limit - (_number(group / "memory.current") or 0.0) + _file_cache(group))
                yield limit, free, f"{name} of the cgroup {group.relative_to(root / 'sys/fs/cgroup')} allows; raise it"
        group = group.parent


def _file_cache(group: Path) -> float:
    """Bytes that the kernel counts as used and gives away when they are asked for."""
    try:
        told = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return 0.0
    return float(told.get("inactive_file", 0)) + float(told.get("active_file", 0))


def _number(file: Path) -> float | None:
    """None for a file that is not there, or that says "max"."""
    try:
        found = file.read_text().strip()
    except OSError:
        return None
    return None if found == "max" else float(found)
