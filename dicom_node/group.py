"""Which images make one acquisition, and whether it is complete.  Pure: instances and the time in, groups out.

The rule, in the order in which it is applied:

1. What `describe` refused makes one FOREIGN group for each series; so does, after the quiet time, what has one echo and
   no phase.
2. The others are parted by study, frame of reference and grid: rows, columns, pixel spacing, orientation and in-plane
   origin, within tolerances.
3. Within a grid, the images of one series with one repetition (acquisition number, temporal position) and one
   processing are a *run*; its images of one component and echo are a *stack*.  An acquisition never has a stack twice.
   So runs that began together (acquisition time at the same slice, within START_TOLERANCE) are one acquisition: the
   magnitude and the phase series of one scan, or a series for each echo, while a repetition of the protocol stays
   apart.  What is left over is joined with its nearest complement of the same protocol within JOIN_TOLERANCE, for
   archives and exports that put the time of the series there; where times were removed, the order of series numbers
   decides.  InstanceNumber and EchoNumbers are never used.
4. Of several exports of one acquisition (classic and enhanced, with and without distortion correction) one is used, the
   others are set aside: the fuller one, then the one that was there first, then the uncorrected, then the classic.
5. The key is made from the member that was received first, so it stays while the group grows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import combinations

import numpy as np

from dicom_node.convert.geometry import DIRECTION_TOLERANCE, IN_PLANE_TOLERANCE, image_coordinates
from dicom_node.convert.matrix import Cell, Grid, Matrix
from dicom_node.convert.planes import ENHANCED
from dicom_node.model import Completeness, Component, Group, Instance

START_TOLERANCE = 10.0
"""Seconds between the beginnings of runs of one acquisition.  Echoes of one scan differ by less than a TR (0.6 s on a
Siemens XA30 field map), repetitions by a scan's duration: even a coarse multi-echo GRE takes longer than this."""

JOIN_TOLERANCE = 300.0
"""Seconds between runs that are joined although they did not begin together.  Must stay below the time in which a scan
could be sent in part, repeated, and sent in another part."""

PIXEL_SPACING_TOLERANCE = 1e-3
"""mm."""

_DISTORTION_CORRECTION = ("DIS2D", "DIS3D")


def group(
    instances: Sequence[Instance], now: float, quiet_time: float, open_associations: frozenset[str]
) -> list[Group]:
    """The groups that the instances make, in the order of their keys; every instance is in exactly one.

    now, quiet_time: seconds.  open_associations: ids of associations over which more may come.
    An object that is there twice (same SOP Instance UID) counts once; its duplicates are set aside.
    """
    known: dict[str, Instance] = {}
    duplicates: dict[str, list[Instance]] = defaultdict(list)
    for instance in sorted(instances, key=_order):
        first = known.setdefault(instance.sop_instance_uid, instance)
        if first is not instance:
            duplicates[first.sop_instance_uid].append(instance)

    clock = _Clock(now, quiet_time, open_associations)
    groups = [_refused(members) for members in _by_series([i for i in known.values() if i.refusal])]
    alone: list[Instance] = []
    for family in _families([instance for instance in known.values() if not instance.refusal]):
        for runs in _same_acquisition(_runs(family)):
            if _is_magnitude_of_one_echo(runs):
                alone += [instance for run in runs for instance in run.instances]
            else:
                groups.append(_acquisition(runs, clock))
    groups += [_magnitude_alone(members, clock) for members in _by_series(alone)]
    return sorted((_with_duplicates(found, duplicates) for found in groups), key=lambda found: found.key)


@dataclass(frozen=True)
class _Clock:
    now: float
    quiet_time: float
    open_associations: frozenset[str]

    def is_quiet(self, instances: Sequence[Instance]) -> bool:
        return self.now - max(instance.received_at for instance in instances) >= self.quiet_time

    def is_open(self, instances: Sequence[Instance]) -> bool:
        return any(instance.association in self.open_associations for instance in instances)


def _order(instance: Instance) -> tuple[float, str, str]:
    return instance.received_at, instance.sop_instance_uid, str(instance.path)


def _key(instances: Sequence[Instance]) -> str:
    first = min(instances, key=_order)
    return hashlib.sha256("\n".join((first.study_instance_uid, first.sop_instance_uid)).encode()).hexdigest()[:32]


# What is no acquisition: a group for each series, however many planes, phases or repetitions it has


def _by_series(instances: Sequence[Instance]) -> list[list[Instance]]:
    series: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        series[instance.study_instance_uid, instance.series_instance_uid].append(instance)
    return list(series.values())


def _refused(members: list[Instance]) -> Group:
    reason = "; ".join(sorted({instance.refusal for instance in members}))
    return _no_acquisition(members, Completeness.FOREIGN, reason)


def _magnitude_alone(members: list[Instance], clock: _Clock) -> Group:
    """Phase or further echoes may follow; if they do not, it is a T1, a localiser, a dynamic series…"""
    if not clock.is_quiet(members):
        return _no_acquisition(members, Completeness.WAITING, "")
    reason = "magnitude of a single echo, without phase: not a multi-echo gradient echo"
    return _no_acquisition(members, Completeness.FOREIGN, reason)


def _no_acquisition(members: list[Instance], completeness: Completeness, reason: str) -> Group:
    return Group(_key(members), members[0].study_instance_uid, completeness, _by_uid(members), (), (), (), reason)


def _by_uid(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    return tuple(sorted(instances, key=lambda instance: instance.sop_instance_uid))


# Grids


def _families(instances: list[Instance]) -> list[list[Instance]]:
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
        and np.allclose(a.pixel_spacing, b.pixel_spacing, rtol=0, atol=PIXEL_SPACING_TOLERANCE)
        and np.allclose(first.orientation, other.orientation, rtol=0, atol=DIRECTION_TOLERANCE)
        and np.allclose(image_coordinates(first)[:2], image_coordinates(other)[:2], rtol=0, atol=IN_PLANE_TOLERANCE)
    )


# Runs


Stack = tuple[Component, int]
"""Component and echo, from 0, in the family's grid."""


@dataclass(frozen=True)
class _Run:
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


def _runs(family: list[Instance]) -> list[_Run]:
    grid = Grid.of(frame for instance in family for frame in instance.frames)
    members: dict[tuple[str, str, str, bool], list[Instance]] = defaultdict(list)
    for instance in family:
        kind = (instance.series_instance_uid, instance.repetition, instance.processing)
        members[*kind, instance.sop_class_uid in ENHANCED].append(instance)
    return sorted((_run(found, grid) for found in members.values()), key=_Run.order)


def _run(instances: list[Instance], grid: Grid) -> _Run:
    cells = set()
    starts: dict[int, float] = {}
    for instance in instances:
        for frame in instance.frames:
            cell = grid.cell(frame)
            cells.add(cell)
            seconds = _seconds(frame.acquired_at)
            if seconds is not None:
                starts[cell[2]] = min(seconds, starts.get(cell[2], seconds))
    return _Run(tuple(instances), frozenset(cells), starts)


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


# Runs of one acquisition


def _same_acquisition(runs: list[_Run]) -> list[list[_Run]]:
    acquisitions: list[list[_Run]] = []
    for run in runs:
        together = [a for a in acquisitions if _compatible(a, [run]) and _distance(a, [run])[0] <= START_TOLERANCE]
        if together:
            min(together, key=lambda acquisition: _distance(acquisition, [run])).append(run)
        else:
            acquisitions.append([run])
    while pair := _nearest_complements(acquisitions):
        first, other = pair
        first += other
        acquisitions.remove(other)
    return acquisitions


def _is_magnitude_of_one_echo(runs: list[_Run]) -> bool:
    stacks = {stack for run in runs for stack in run.stacks}
    return len(stacks) == 1 and {component for component, _ in stacks} == {Component.MAGNITUDE}


def _compatible(acquisition: list[_Run], others: list[_Run]) -> bool:
    """Whether no run of one repeats a run of the other."""
    return not any(_repeats(a, b) for a in acquisition for b in others)


def _repeats(a: _Run, b: _Run) -> bool:
    """Exports in another form, and renderings in another processing, are no repetitions."""
    return a.form == b.form and a.processing == b.processing and bool(a.stacks & b.stacks)


def _nearest_complements(acquisitions: list[list[_Run]]) -> tuple[list[_Run], list[_Run]] | None:
    pairs = [pair for pair in combinations(acquisitions, 2) if _complement(*pair)]
    return min(pairs, key=lambda pair: _distance(*pair), default=None)


def _complement(a: list[_Run], b: list[_Run]) -> bool:
    """Whether two are parts of one scan although their times differ."""
    kinds = {(run.form, run.distortion_correction, run.protocol) for run in (*a, *b)}
    stacks = [frozenset().union(*(run.stacks for run in runs)) for runs in (a, b)]
    return len(kinds) == 1 and not stacks[0] & stacks[1] and _compatible(a, b) and _distance(a, b)[0] <= JOIN_TOLERANCE


def _distance(acquisition: list[_Run], others: list[_Run]) -> tuple[float, bool, int]:
    """How far two are apart: in time (0 where unknown), repetition, series number."""
    return min(
        (_apart(a, b), a.repetition != b.repetition, abs(a.series[0] - b.series[0]))
        for a in acquisition
        for b in others
    )


def _apart(a: _Run, b: _Run) -> float:
    """Seconds between the beginnings of two runs, at the slices they share if they share any."""
    if not (a.starts and b.starts):
        return 0.0
    shared = a.starts.keys() & b.starts.keys()
    if shared:
        return min(abs(a.starts[slice_] - b.starts[slice_]) for slice_ in shared)
    return abs(min(a.starts.values()) - min(b.starts.values()))


# Acquisitions


@dataclass(frozen=True)
class _Export:
    """One form in which the whole acquisition was exported."""

    used: tuple[Instance, ...]
    matrix: Matrix
    holes: tuple[str, ...]
    form: str
    distortion_correction: str

    def preference(self) -> tuple[bool, int, float, bool, bool]:
        """Lowest first: full, fuller, there first, not distortion corrected, classic."""
        received = max(instance.received_at for instance in self.used)
        corrected = bool(self.distortion_correction)
        return bool(self.holes), -len(self.matrix.cells), received, corrected, self.form == "enhanced"


def _exports(runs: list[_Run]) -> list[_Export]:
    kinds: dict[tuple[str, str], list[_Run]] = defaultdict(list)
    for run in runs:
        kinds[run.form, run.distortion_correction].append(run)
    return [_export(members, *kind) for kind, members in kinds.items()]


def _export(runs: list[_Run], form: str, distortion_correction: str) -> _Export:
    used: list[Instance] = []
    stacks: set[Stack] = set()
    for run in sorted(runs, key=lambda run: (run.processing, run.order())):
        # The same stack in another processing (normalised and not): the plainer one was taken already.
        if not stacks & run.stacks:
            stacks |= run.stacks
            used += run.instances
    matrix = Matrix.of(used)
    needed = [i for i in used if any(frame.component in matrix.components for frame in i.frames)]
    if len(needed) < len(used):
        matrix = Matrix.of(needed)
    return _Export(tuple(needed), matrix, matrix.holes(), form, distortion_correction)


def _acquisition(runs: list[_Run], clock: _Clock) -> Group:
    members = [instance for run in runs for instance in run.instances]
    export = min(_exports(runs), key=_Export.preference)
    quiet = clock.is_quiet(export.used)
    if export.holes:
        completeness = Completeness.INCOMPLETE if quiet else Completeness.WAITING
    else:
        completeness = Completeness.COMPLETE if quiet or _all_sent(export, clock) else Completeness.WAITING
    used = {instance.sop_instance_uid for instance in export.used}
    return Group(
        key=_key(members),
        study_instance_uid=members[0].study_instance_uid,
        completeness=completeness,
        instances=_by_uid(export.used),
        set_aside=_by_uid([instance for instance in members if instance.sop_instance_uid not in used]),
        echo_times=export.matrix.echo_times,
        holes=export.holes,
        reason=_incomplete_reason(export) if completeness is Completeness.INCOMPLETE else "",
    )


def _all_sent(export: _Export, clock: _Clock) -> bool:
    """Whether the end of the associations is enough to know that nothing more is coming.

    It is not where images come one by one (more associations than series), and not where every series holds a single
    echo: then the matrix looks full after the first echo.  Only quiet time ends those.
    """
    if clock.is_open(export.used) or export.matrix.slices < 2:
        return False
    series: dict[str, set[int]] = defaultdict(set)
    for (_, echo, _), sources in export.matrix.cells.items():
        for instance, _ in sources:
            series[instance.series_instance_uid].add(echo)
    associations = {instance.association for instance in export.used}
    return len(associations) <= len(series) and max(map(len, series.values())) > 1


def _incomplete_reason(export: _Export) -> str:
    phases = {echo for component, echo, _ in export.matrix.cells if component is Component.PHASE}
    last = len(export.matrix.echo_times) - 1
    hint = " (phase of the last echo alone is often a phase difference)" if last > 0 and phases == {last} else ""
    return "; ".join(export.holes) + hint


def _with_duplicates(found: Group, duplicates: dict[str, list[Instance]]) -> Group:
    extra = [d for i in (*found.instances, *found.set_aside) for d in duplicates.get(i.sop_instance_uid, ())]
    if not extra:
        return found
    return dataclasses.replace(found, set_aside=(*found.set_aside, *extra))
