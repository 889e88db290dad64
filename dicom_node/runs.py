"""Which images were taken together: runs, and the runs of one acquisition.

A *run* is the images of one series with one repetition (acquisition number, temporal position) and one processing, in
one form (classic or enhanced); its images of one component and echo are a *stack*.  The rule stands in `group`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import combinations

from dicom_node.convert.matrix import Cell, Grid
from dicom_node.convert.planes import ENHANCED
from dicom_node.convert.stack import DIRECTION_TOLERANCE, IN_PLANE_TOLERANCE, image_coordinates
from dicom_node.model import Component, Instance

START_TOLERANCE = 10.0
"""Seconds between the beginnings of runs of one acquisition.  Echoes of one scan differ by less than a TR (0.6 s on a
Siemens XA30 field map), repetitions by a scan's duration: even a coarse multi-echo GRE takes longer than this."""

JOIN_TOLERANCE = 300.0
"""Seconds between runs that are joined although they did not begin together.  Must stay below the time in which a scan
could be sent in part, repeated, and sent in another part."""

PIXEL_SPACING_TOLERANCE = 1e-3
"""mm."""

Stack = tuple[Component, int]
"""Component and echo, from 0, in the family's grid."""

_DISTORTION_CORRECTION = ("DIS2D", "DIS3D")


@dataclass(frozen=True)
class Run:
    """Images of one series, repetition and processing, in one form.

    cells, stacks: of the family's grid.  starts: when the acquisition began, by slice, s; empty where unknown.
    """

    instances: tuple[Instance, ...]
    cells: frozenset[Cell]
    starts: dict[int, float]

    @cached_property
    def stacks(self) -> frozenset[Stack]:
        return frozenset((component, echo) for component, echo, _ in self.cells)

    @property
    def form(self) -> str:
        return "enhanced" if self.instances[0].sop_class_uid in ENHANCED else "classic"

    @property
    def series(self) -> tuple[int, str]:
        return self.instances[0].series_number, self.instances[0].series_instance_uid

    @property
    def repetition(self) -> str:
        return self.instances[0].repetition

    @property
    def processing(self) -> str:
        return self.instances[0].processing

    @property
    def protocol(self) -> str:
        return self.instances[0].protocol

    @property
    def distortion_correction(self) -> str:
        return next((word for word in self.processing.split() if word in _DISTORTION_CORRECTION), "")

    def order(self) -> tuple[float, int, str, str, str, str]:
        start = min(self.starts.values(), default=float("inf"))
        return start, *self.series, self.repetition, self.processing, self.form


def acquisitions(instances: Sequence[Instance]) -> list[list[Run]]:
    """The runs of each acquisition.  Every instance, none of them refused, is in exactly one run."""
    return [found for family in _families(instances) for found in _same_acquisition(_runs(family))]


def is_magnitude_of_one_echo(runs: Sequence[Run]) -> bool:
    """Whether there is neither phase nor another echo."""
    stacks = {stack for run in runs for stack in run.stacks}
    return len(stacks) == 1 and {component for component, _ in stacks} == {Component.MAGNITUDE}


def _families(instances: Sequence[Instance]) -> list[list[Instance]]:
    """Instances that share study, frame of reference and grid."""
    families: list[list[Instance]] = []
    for instance in sorted(instances, key=lambda instance: instance.sop_instance_uid):
        family = next((family for family in families if _same_grid(family[0], instance)), None)
        if family is None:
            families.append([instance])
        else:
            family.append(instance)
    return families


def _same_grid(a: Instance, b: Instance) -> bool:
    first, other = a.frames[0], b.frames[0]
    return (
        (a.study_instance_uid, a.frame_of_reference_uid, a.rows, a.columns)
        == (b.study_instance_uid, b.frame_of_reference_uid, b.rows, b.columns)
        and _near(a.pixel_spacing, b.pixel_spacing, PIXEL_SPACING_TOLERANCE)
        and _near(first.orientation, other.orientation, DIRECTION_TOLERANCE)
        and _near(image_coordinates(first)[:2], image_coordinates(other)[:2], IN_PLANE_TOLERANCE)
    )


def _near(some: Sequence[float], others: Sequence[float], tolerance: float) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(some, others, strict=True))


def _runs(family: list[Instance]) -> list[Run]:
    grid = Grid.of(frame for instance in family for frame in instance.frames)
    members: dict[tuple[str, str, str, bool], list[Instance]] = defaultdict(list)
    for instance in family:
        kind = (instance.series_instance_uid, instance.repetition, instance.processing)
        members[*kind, instance.sop_class_uid in ENHANCED].append(instance)
    return sorted((_run(found, grid) for found in members.values()), key=Run.order)


def _run(instances: list[Instance], grid: Grid) -> Run:
    cells = set()
    starts: dict[int, float] = {}
    for instance in instances:
        for frame in instance.frames:
            cell = grid.cell(frame)
            cells.add(cell)
            seconds = _seconds(frame.acquired_at)
            if seconds is not None:
                starts[cell[2]] = min(seconds, starts.get(cell[2], seconds))
    return Run(tuple(instances), frozenset(cells), starts)


def _seconds(moment: str) -> float | None:
    """Of a DT (YYYYMMDDHHMMSS.F&ZZXX) or TM (HHMMSS.F); None if it is neither."""
    parts = re.match(r"(\d{8})?(\d{6})(\.\d+)?", moment)
    if parts is None:
        return None
    try:
        whole = datetime.strptime((parts[1] or "19700101") + parts[2], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    return (whole - datetime(1970, 1, 1)).total_seconds() + float(parts[3] or 0)


def _same_acquisition(runs: list[Run]) -> list[list[Run]]:
    found: list[list[Run]] = []
    for run in runs:
        together = [a for a in found if _compatible(a, [run]) and _distance(a, [run])[0] <= START_TOLERANCE]
        if together:
            min(together, key=lambda acquisition: _distance(acquisition, [run])).append(run)
        else:
            found.append([run])
    while pair := _nearest_complements(found):
        first, other = pair
        first += other
        found.remove(other)
    return found


def _compatible(acquisition: list[Run], others: list[Run]) -> bool:
    """Whether no run of one repeats a run of the other."""
    return not any(_repeats(a, b) for a in acquisition for b in others)


def _repeats(a: Run, b: Run) -> bool:
    """Exports in another form, and renderings in another processing, are no repetitions."""
    return a.form == b.form and a.processing == b.processing and bool(a.stacks & b.stacks)


def _nearest_complements(acquisitions: list[list[Run]]) -> tuple[list[Run], list[Run]] | None:
    pairs = [pair for pair in combinations(acquisitions, 2) if _complement(*pair)]
    return min(pairs, key=lambda pair: _distance(*pair), default=None)


def _complement(a: list[Run], b: list[Run]) -> bool:
    """Whether two are parts of one scan although their times differ."""
    kinds = {(run.form, run.distortion_correction, run.protocol) for run in (*a, *b)}
    stacks = [frozenset().union(*(run.stacks for run in runs)) for runs in (a, b)]
    return len(kinds) == 1 and not stacks[0] & stacks[1] and _compatible(a, b) and _distance(a, b)[0] <= JOIN_TOLERANCE


def _distance(acquisition: list[Run], others: list[Run]) -> tuple[float, bool, int]:
    """How far two are apart: in time (0 where unknown), repetition, series number."""
    return min(
        (_apart(a, b), a.repetition != b.repetition, abs(a.series[0] - b.series[0]))
        for a in acquisition
        for b in others
    )


def _apart(a: Run, b: Run) -> float:
    """Seconds between the beginnings of two runs, at the slices they share if they share any."""
    if not (a.starts and b.starts):
        return 0.0
    shared = a.starts.keys() & b.starts.keys()
    if shared:
        return min(abs(a.starts[slice_] - b.starts[slice_]) for slice_ in shared)
    return abs(min(a.starts.values()) - min(b.starts.values()))
