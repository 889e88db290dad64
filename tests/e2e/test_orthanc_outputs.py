"""What the node makes goes into a real archive, is found there, and comes back as it was sent; twice is once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node import reconstruct
from dicom_node.call import SendSettings
from dicom_node.desk import reconstruct_folder
from dicom_node.send import send
from tests.dicom_node.encode.example import EVERYTHING, SHAPE, STUDY, recipe
from tests.dicom_node.study import instant_physics, write_study
from tests.peers import Orthanc, running_orthanc

pytestmark = pytest.mark.orthanc

INSTANCES = 5 * SHAPE[2] + 5 + 6
"""QSM, R2*, T2* and two fields, in float32 too; segmentation, report, page, document and two presentation states."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("outputs")
    write_study(root / "in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstruct, "reconstruct", instant_physics)
        assert reconstruct_folder(root / "in", root / "out", recipe(), nifti=False, output=EVERYTHING) == 0
    return sorted((root / "out" / "dicom").iterdir())


@pytest.fixture(scope="module")
def archive(orthanc_command: Path, outputs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc after the outputs were sent."""
    with running_orthanc(orthanc_command, tmp_path_factory.mktemp("orthanc")) as peer:
        assert Counter(d.outcome for d in send(outputs, peer.destination, SendSettings())) == {"stored": INSTANCES}
        yield peer


def test_orthanc_stores_every_output(archive: Orthanc) -> None:
    counts = {what: archive.count(what) for what in ("Patients", "Studies", "Series", "Instances")}
    assert counts == {"Patients": 1, "Studies": 1, "Series": 16, "Instances": INSTANCES}


def test_a_second_sending_adds_nothing(archive: Orthanc, outputs: list[Path]) -> None:
    assert {d.outcome for d in send(outputs, archive.destination, SendSettings())} == {"stored"}
    assert archive.count("Instances") == INSTANCES


def test_orthanc_finds_the_series(archive: Orthanc) -> None:
    series = [archive.get(f"series/{found}")["MainDicomTags"] for found in archive.get("series")]
    assert {(s["Modality"], s["SeriesDescription"], s["SeriesNumber"]) for s in series} == {
        ("MR", "QSM (ppb)", "701"),
        ("MR", "R2* (1/s)", "702"),
        ("SEG", "QSM regions", "703"),
        ("SR", "QSM report", "704"),
        ("OT", "QSM page", "705"),
        ("MR", "T2* (ms)", "708"),
        ("MR", "Field (Hz)", "709"),
        ("MR", "Local field (ppb)", "710"),
        ("OT", "QSM (ppb) float32", "741"),
        ("OT", "R2* (1/s) float32", "742"),
        ("OT", "T2* (ms) float32", "748"),
        ("OT", "Field (Hz) float32", "749"),
        ("OT", "Local field (ppb) float32", "750"),
        ("PR", "QSM window", "714"),
        ("PR", "QSM colours", "715"),
        ("DOC", "QSM page", "716"),
    }


def test_orthanc_finds_them_by_study_and_modality(archive: Orthanc) -> None:
    for modality, series in (("MR", 5), ("SEG", 1), ("SR", 1), ("OT", 6), ("DOC", 1), ("PR", 2)):
        query = {"Level": "Series", "Query": {"StudyInstanceUID": STUDY, "Modality": modality}}
        assert len(archive.post("tools/find", query)) == series


def test_orthanc_gives_back_what_was_sent(archive: Orthanc, outputs: list[Path], tmp_path: Path) -> None:
    for path in outputs:
        sent = dcmread(path)
        returned = tmp_path / path.name
        returned.write_bytes(archive.file(sent.SOPInstanceUID))
        assert dcmread(returned) == sent


def test_the_record_names_what_arrived(archive: Orthanc, outputs: list[Path]) -> None:
    record = json.loads((outputs[0].parents[1] / "report.json").read_text())
    there = {archive.get(f"instances/{i}")["MainDicomTags"]["SOPInstanceUID"] for i in archive.get("instances")}
    assert {output["sop_instance_uid"] for output in record["outputs"]} == there
