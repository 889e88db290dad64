"""Rows and folders that the tests of the daemon's parts begin with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from dicom_node.model import Completeness, Component, Frame, Group, Instance
from dicom_node.states import State
from dicom_node.store import Job, Store

STUDY = "1.2.3"


class Clock:
    """Time that passes when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def an_instance(number: int = 1, study: str = STUDY, folder: Path = Path("/spool")) -> Instance:
    uid = f"{study}.4.{number}"
    frame = Frame(0, Component.PHASE, 7.001, (1.0, -2.5, 0.1), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), "20200101120000.5")
    return Instance(
        path=folder / f"{uid}.dcm",
        sop_instance_uid=uid,
        sop_class_uid=MRImageStorage,
        study_instance_uid=study,
        series_instance_uid=f"{study}.4",
        series_number=4,
        frame_of_reference_uid=f"{study}.9",
        rows=8,
        columns=6,
        pixel_spacing=(1.0, 1.5),
        encoding="siemens",
        refusal="",
        frames=(frame, replace(frame, index=1)),
        received_at=100.25,
        association="a1",
        digest="ab" * 32,
    )


def a_group(
    numbers: Sequence[int],
    completeness: Completeness = Completeness.COMPLETE,
    *,
    key: str = "g",
    set_aside: Sequence[int] = (),
    reason: str = "",
) -> Group:
    return Group(
        key=key,
        study_instance_uid=STUDY,
        completeness=completeness,
        instances=tuple(an_instance(n) for n in numbers),
        set_aside=tuple(an_instance(n) for n in set_aside),
        echo_times=(7.0, 14.0),
        holes=(),
        reason=reason,
    )


def a_ready_job(store: Store, key: str = "g", numbers: Sequence[int] = (1,), now: float = 1.0) -> int:
    for number in numbers:
        store.add_instance(an_instance(number))
    job = store.open_job(key, 1, STUDY, [an_instance(n).sop_instance_uid for n in numbers], now).id
    assert store.advance(job, State.WAITING, State.READY, now)
    return job


def the_job(store: Store, number: int) -> Job:
    job = store.job(number)
    assert job is not None
    return job


def a_file(path: Path, uid: str) -> Path:
    """A DICOM file just large enough to be sent."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, f"{STUDY}.7"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def a_report(result: Path, grade: str = "good") -> Path:
    """The report of a result folder, as far as the line reads it; returns the folder."""
    result.mkdir(parents=True, exist_ok=True)
    grounds = [] if grade == "good" else ["streaks is 3, expected at most 2: the map is streaky"]
    (result / "report.json").write_text(json.dumps({"grade": {"grade": grade, "grounds": grounds}}))
    return result
