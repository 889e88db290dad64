"""Modality Performed Procedure Step, as the one who is told (PS3.4 F.7): what a scanner says it has made.

The grid of echoes and slices knows a hole within it, not slices that are missing at its end, nor that nothing more is
coming.  A scanner that tells which series and images its step has made knows both.  A step is a row before it is
answered; where none comes, or it says little, the quiet time decides as ever.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt

from dicom_node.model import Completeness, Group, Instance
from dicom_node.spool import UID_PATTERN
from dicom_node.store import Store

MPPS = UID("1.2.840.10008.3.1.2.3.3")
"""Modality Performed Procedure Step SOP Class."""

SUCCESS = 0x0000
INVALID_VALUE, FAILURE, DUPLICATE, UNKNOWN, INVALID_INSTANCE, MISSING = 0x0106, 0x0110, 0x0111, 0x0112, 0x0117, 0x0120
"""Statuses of PS3.7 C.5: invalid attribute value, processing failure, duplicate SOP instance, no such object instance,
invalid object instance, missing attribute."""
NO_LONGER_UPDATED = 0xA710
"""Error ID of a step that is over (PS3.4 F.7.2.2.4), with FAILURE."""
KEPT = 30 * 86400.0
"""Seconds that a step is remembered."""

log = structlog.get_logger(__name__)


class Status(StrEnum):
    """Performed Procedure Step Status (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True)
class Step:
    """series: Series Instance UIDs that it has made, each with the SOP Instance UIDs of its images, as far as told."""

    status: Status
    series: dict[str, frozenset[str]]


class ProcedureSteps:
    """What scanners told, in the store.  Handlers run on the association's thread."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    def created(self, event: evt.Event) -> tuple[int | Dataset, None]:
        """For EVT_N_CREATE."""
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID or "")
        return self._answered(uid, event, lambda: self._create(uid, event.attribute_list, event))

    def set(self, event: evt.Event) -> tuple[int | Dataset, None]:
        """For EVT_N_SET."""
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID or "")
        return self._answered(uid, event, lambda: self._set(uid, event.modification_list))

    def _answered(self, uid: str, event: evt.Event, tell: Callable[[], int]) -> tuple[int | Dataset, None]:
        title = str(event.assoc.requestor.ae_title).strip()
        if not UID_PATTERN.fullmatch(uid):
            return INVALID_INSTANCE, None
        try:
            with self._store.transaction():
                status = tell()
        except sqlite3.Error as error:
            log.error("procedure_step_not_kept", ae_title=title, error=str(error))
            return FAILURE, None
        if status:
            log.warning("procedure_step_refused", ae_title=title, sop_instance_uid=uid, status=f"0x{status:04X}")
        return (_over() if status == FAILURE else status), None

    def _create(self, uid: str, told: Dataset, event: evt.Event) -> int:
        if self._status(uid) is not None:
            return DUPLICATE
        if "PerformedProcedureStepStatus" not in told:
            return MISSING
        series = _series(told)
        if str(told.PerformedProcedureStepStatus) != Status.IN_PROGRESS or series is None:
            return INVALID_VALUE
        studies = [str(item.get("StudyInstanceUID", "")) for item in told.get("ScheduledStepAttributesSequence") or []]
        now = self._clock()
        self._store.database.execute("DELETE FROM procedure_steps WHERE changed_at < ?", [now - KEPT])
        self._store.database.execute(
            """INSERT INTO procedure_steps (sop_instance_uid, ae_title, status, studies, changed_at)
            VALUES (?, ?, ?, ?, ?)""",
            [uid, str(event.assoc.requestor.ae_title).strip(), Status.IN_PROGRESS, json.dumps(studies), now],
        )
        self._write(uid, series)
        log.info("procedure_step", sop_instance_uid=uid, status=Status.IN_PROGRESS.value)
        return SUCCESS

    def _set(self, uid: str, told: Dataset) -> int:
        before = self._status(uid)
        if before is None:
            return UNKNOWN
        if before is not Status.IN_PROGRESS:
            return FAILURE
        series, said = _series(told), str(told.get("PerformedProcedureStepStatus") or before)
        if series is None or said not in set(Status):
            return INVALID_VALUE
        if "PerformedSeriesSequence" in told:
            self._write(uid, series)
        self._store.database.execute(
            "UPDATE procedure_steps SET status = ?, changed_at = ? WHERE sop_instance_uid = ?",
            [said, self._clock(), uid],
        )
        [row] = self._store.rows("SELECT studies FROM procedure_steps WHERE sop_instance_uid = :uid", {"uid": uid})
        for study in json.loads(row["studies"]):
            self._store.look_again_at(study)
        images = sorted({image for of_series in series.values() for image in of_series})
        here = len(self._store.paths(images))
        log.info("procedure_step", sop_instance_uid=uid, status=said, series=len(series), images=len(images), here=here)
        return SUCCESS

    def _status(self, uid: str) -> Status | None:
        found = self._store.rows("SELECT status FROM procedure_steps WHERE sop_instance_uid = :uid", {"uid": uid})
        return Status(found[0]["status"]) if found else None

    def _write(self, uid: str, series: dict[str, frozenset[str]]) -> None:
        database = self._store.database
        database.execute("DELETE FROM performed_series WHERE step = ?", [uid])
        for name, images in series.items():
            database.execute(
                "INSERT INTO performed_series (series_instance_uid, step, images) VALUES (?, ?, ?)",
                [name, uid, json.dumps(sorted(images))],
            )


def steps_with(store: Store, series: Collection[str]) -> list[Step]:
    """The steps that have made any of these series."""
    found: dict[str, Step] = {}
    for row in store.rows(
        """SELECT s.sop_instance_uid, s.status, p.series_instance_uid, p.images
        FROM performed_series p JOIN procedure_steps s ON s.sop_instance_uid = p.step
        WHERE p.step IN (SELECT step FROM performed_series
            WHERE series_instance_uid IN (SELECT value FROM json_each(:series)))""",
        {"series": json.dumps(sorted(series))},
    ):
        step = found.setdefault(row["sop_instance_uid"], Step(Status(row["status"]), {}))
        step.series[row["series_instance_uid"]] = frozenset(json.loads(row["images"]))
    return list(found.values())


def heed(
    groups: Sequence[Group],
    steps: Sequence[Step],
    instances: Sequence[Instance],
    now: float,
    quiet_time: float,
) -> list[Group]:
    """The groups of a study in the light of what its scanner told.  Pure.

    instances: all of the study.  The rest as for `group`.
    """
    here = _Here(
        frozenset(instance.sop_instance_uid for instance in instances),
        frozenset(instance.series_instance_uid for instance in instances),
    )
    return [_heed(group, steps, here, now, quiet_time) for group in groups]


@dataclass(frozen=True)
class _Here:
    """What has come of a study, by UID."""

    images: frozenset[str]
    series: frozenset[str]


def _heed(group: Group, steps: Sequence[Step], here: _Here, now: float, quiet_time: float) -> Group:
    own = {instance.series_instance_uid for instance in group.instances}
    told = [step for step in steps if own & step.series.keys()]
    # Without echo times it is no acquisition: that its step is over makes none of it.
    if group.completeness is Completeness.FOREIGN or not group.echo_times or not told:
        return group
    completed = [step for step in told if step.status is Status.COMPLETED]
    of_series = {name: images for step in completed for name, images in step.series.items()}
    missing = {image for name in own & of_series.keys() for image in of_series[name]} - here.images
    if missing:
        quiet = now - max(instance.received_at for instance in group.instances) >= quiet_time
        holes = (*group.holes, f"{len(missing)} images that the scanner says it has made did not come")
        completeness = Completeness.INCOMPLETE if quiet else Completeness.WAITING
        reason = "; ".join(holes) if completeness is Completeness.INCOMPLETE else ""
        return replace(group, completeness=completeness, holes=holes, reason=reason)
    if group.completeness is Completeness.INCOMPLETE and any(s.status is Status.DISCONTINUED for s in told):
        return replace(group, reason=f"{group.reason}; the scanner has discontinued the procedure step")
    if group.completeness is Completeness.WAITING and not group.holes and own <= of_series.keys():
        # A series without named images may lack some still, whatever its grid looks like: time decides.
        all_named = all(of_series[name] for name in own)
        whole_step = of_series.keys() <= here.series and frozenset().union(*of_series.values()) <= here.images
        if all_named and (_holds_several_echoes(group) or whole_step):
            return replace(group, completeness=Completeness.COMPLETE)
    return group


def _holds_several_echoes(group: Group) -> bool:
    """Whether its series do.  Where each holds one, the grid looks full after the first of them."""
    echoes: dict[str, set[float]] = {}
    for instance in group.instances:
        echoes.setdefault(instance.series_instance_uid, set()).update(frame.echo_time for frame in instance.frames)
    return all(len(of_series) > 1 for of_series in echoes.values())


def _series(told: Dataset) -> dict[str, frozenset[str]] | None:
    """What the Performed Series Sequence (0040,0340) names; None where a UID is none."""
    found: dict[str, set[str]] = {}
    for item in told.get("PerformedSeriesSequence") or []:
        images = found.setdefault(str(item.get("SeriesInstanceUID") or ""), set())
        images |= {str(one.get("ReferencedSOPInstanceUID") or "") for one in item.get("ReferencedImageSequence") or []}
    uids = [*found, *(image for images in found.values() for image in images)]
    if not all(UID_PATTERN.fullmatch(uid) for uid in uids):
        return None
    return {name: frozenset(images) for name, images in found.items()}


def _over() -> Dataset:
    answer: Any = Dataset()
    answer.Status = FAILURE
    answer.ErrorID = NO_LONGER_UPDATED
    answer.ErrorComment = "Performed Procedure Step Object may no longer be updated"
    return answer  # type: ignore[no-any-return]  # a data set takes any attribute
