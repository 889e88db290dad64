"""Which images make one acquisition, and whether it is complete.  Pure: instances and the time in, groups out.

The rule, in the order in which it is applied:

1. What `describe` refused makes one FOREIGN group for each series; so do images of single coil elements, and, after the
   quiet time, what has one echo and no phase.
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
5. A segmentation of the brain belongs to the acquisition of whose series it was made; of several the last to come is
   used.  It counts neither for completeness nor for the key.
6. The key is made from the member that was received first, so it stays while the group grows.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_node.convert.matrix import Matrix
from dicom_node.model import Completeness, Component, Group, Instance
from dicom_node.runs import Run, Stack, acquisitions, is_magnitude_of_one_echo


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
    groups = [_refused(members) for members in _by_series([i for i in known.values() if i.refusal and not i.brain_of])]
    usable = [instance for instance in known.values() if not instance.refusal]
    uncombined = _uncombined(usable)
    groups += [
        _no_acquisition(members, Completeness.FOREIGN, _UNCOMBINED)
        for members in _by_series([instance for instance in usable if instance.sop_instance_uid in uncombined])
    ]
    alone: list[Instance] = []
    for runs in acquisitions([instance for instance in usable if instance.sop_instance_uid not in uncombined]):
        if is_magnitude_of_one_echo(runs):
            alone += [instance for run in runs for instance in run.instances]
        else:
            groups.append(_acquisition(runs, clock))
    groups += [_magnitude_alone(members, clock) for members in _by_series(alone)]
    if masks := [instance for instance in known.values() if instance.brain_of]:
        groups = _with_masks(groups, masks)
    return sorted((_with_duplicates(found, duplicates) for found in groups), key=lambda found: found.key)


@dataclass(frozen=True)
class _Clock:
    now: float
    quiet_time: float
    open_associations: frozenset[str]

    def is_quiet(self, instances: Sequence[Instance]) -> bool:
        """An image from the future came before the clock was set back and the node restarted: that is over too."""
        return abs(self.now - max(instance.received_at for instance in instances)) >= self.quiet_time

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


_UNCOMBINED = "uncombined images of single coil elements: their phases cannot be averaged; send the combined images"


def _uncombined(instances: Sequence[Instance]) -> set[str]:
    """The instances of scans that have several coil elements' images of one component, echo and place."""
    scans: dict[tuple[str, ...], list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance.coil:
            scans[instance.study_instance_uid, instance.frame_of_reference_uid, instance.protocol].append(instance)
    found: set[str] = set()
    for members in scans.values():
        coils: dict[object, set[str]] = defaultdict(set)
        for instance in members:
            first = instance.frames[0]
            cell = (instance.repetition, instance.sop_class_uid, first.component, first.echo_time, first.position)
            coils[cell].add(instance.coil)
        if any(len(elements) > 1 for elements in coils.values()):
            found |= {instance.sop_instance_uid for instance in members}
    return found


def _magnitude_alone(members: list[Instance], clock: _Clock) -> Group:
    """Phase or further echoes may follow; if they do not, it is a T1, a localiser, a dynamic series…"""
    if not clock.is_quiet(members):
        return _no_acquisition(members, Completeness.WAITING, "")
    reason = "magnitude of a single echo, without phase: not a multi-echo gradient echo"
    places = Counter((frame.position, i.repetition) for i in members for frame in i.frames)
    if set(places.values()) == {2}:
        reason += "; every slice is there twice, as where a field map in Hz and its magnitude share one series"
    return _no_acquisition(members, Completeness.FOREIGN, reason)


def _no_acquisition(members: list[Instance], completeness: Completeness, reason: str) -> Group:
    return Group(_key(members), members[0].study_instance_uid, completeness, _by_uid(members), (), (), (), reason)


def _by_uid(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    return tuple(sorted(instances, key=lambda instance: instance.sop_instance_uid))


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


def _exports(runs: list[Run]) -> list[_Export]:
    kinds: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        kinds[run.form, run.distortion_correction].append(run)
    return [_export(members, *kind) for kind, members in kinds.items()]


def _export(runs: list[Run], form: str, distortion_correction: str) -> _Export:
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


def _acquisition(runs: list[Run], clock: _Clock) -> Group:
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


def _with_masks(groups: list[Group], masks: list[Instance]) -> list[Group]:
    """The groups with the brain that was marked in one of their series; other masks make groups of their own."""
    found: list[Group] = []
    placed: set[str] = set()
    for candidate in groups:
        series = {i.series_instance_uid for i in (*candidate.instances, *candidate.set_aside)}
        own = [mask for mask in masks if series & set(mask.brain_of)]
        if candidate.completeness is Completeness.FOREIGN or not own:
            found.append(candidate)
            continue
        *older, last = sorted(own, key=_order)
        placed |= {mask.sop_instance_uid for mask in own}
        found.append(dataclasses.replace(candidate, mask=last, set_aside=(*candidate.set_aside, *_by_uid(older))))
    homeless = [mask for mask in masks if mask.sop_instance_uid not in placed]
    return found + [_refused(members) for members in _by_series(homeless)]


def _with_duplicates(found: Group, duplicates: dict[str, list[Instance]]) -> Group:
    extra = [d for i in (*found.used, *found.set_aside) for d in duplicates.get(i.sop_instance_uid, ())]
    if not extra:
        return found
    return dataclasses.replace(found, set_aside=(*found.set_aside, *extra))
