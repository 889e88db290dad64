"""A site's brain mask from the file to the report: at the desk, in a job, and when it comes late."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node import reconstruct
from dicom_node.admission import NotAdmitted, admit
from dicom_node.commands import main
from dicom_node.convert import describe
from dicom_node.desk import reconstruct_folder
from dicom_node.group import group
from dicom_node.inspect import inspect
from dicom_node.reconstruct import reconstruct_job
from dicom_node.regroup import place
from dicom_node.states import State
from dicom_node.store import Store
from reconstruction import Acquisition, Maps
from tests.dicom_node.convert.test_mask import converted, nifti, segmentation, some_mask
from tests.dicom_node.encode.example import CREATED, SHAPE, recipe
from tests.dicom_node.study import instant_physics, write_study
from tests.objects import encode

Seen = list[Acquisition]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The acquisitions that the physics is given."""
    acquisitions: Seen = []

    def physics(acquisition: Acquisition, recipe: Any, on_stage: Callable[[str], None], *_: Any, **__: Any) -> Maps:
        acquisitions.append(acquisition)
        return instant_physics(acquisition, recipe, on_stage)

    monkeypatch.setattr(reconstruct, "reconstruct", physics)
    return acquisitions


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return content


def test_the_desk_takes_a_nifti_and_says_so(tmp_path: Path, seen: Seen) -> None:
    study = write_study(tmp_path / "in")
    file = nifti(tmp_path / "brain.nii.gz", some_mask(SHAPE).astype(np.uint8), converted(study)[2].affine)
    assert reconstruct_folder(tmp_path / "in", tmp_path / "with", recipe(), nifti=False, mask=file) == 0
    assert reconstruct_folder(tmp_path / "in", tmp_path / "without", recipe(), nifti=False) == 0
    np.testing.assert_array_equal(seen[0].mask, some_mask(SHAPE))
    assert seen[1].mask is None
    ours, plain = report(tmp_path / "with"), report(tmp_path / "without")
    assert ours["source"]["mask"].startswith("NIfTI with SHA-256")
    assert plain["source"]["mask"] == ""
    assert any("the site's own" in warning for warning in ours["warnings"])
    outputs = [{output["sop_instance_uid"] for output in found["outputs"]} for found in (ours, plain)]
    assert outputs[0].isdisjoint(outputs[1]), "another mask makes another map"


def test_the_report_of_the_archive_says_so_too(tmp_path: Path, seen: Seen) -> None:
    write_study(tmp_path / "in")
    segmentation(tmp_path / "in" / "brain", some_mask(SHAPE))
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False) == 0
    np.testing.assert_array_equal(seen[0].mask, some_mask(SHAPE))
    (sr,) = (tmp_path / "out" / "dicom").glob("*-sr-*.dcm")
    said = [element.value for element in dcmread(sr).iterall() if element.keyword == "TextValue"]
    assert any("segmentation 1.2.3.77.1" in text for text in said)


def test_a_mask_of_another_grid_ends_in_words(tmp_path: Path, seen: Seen, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path / "in")
    affine = converted(study)[2].affine @ np.diag([2.0, 2, 2, 1])
    file = nifti(tmp_path / "brain.nii.gz", some_mask(SHAPE).astype(np.uint8), affine)
    assert reconstruct_folder(tmp_path / "in", tmp_path / "out", recipe(), nifti=False, mask=file) == 3
    assert not seen
    assert "another grid than the images" in capsys.readouterr().err


def test_a_mask_that_is_not_there_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    absent = tmp_path / "absent.nii"
    assert main(["reconstruct", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--mask", str(absent)]) == 2
    assert "is no file" in capsys.readouterr().err


def test_a_job_uses_the_segmentation_among_its_files(tmp_path: Path, seen: Seen) -> None:
    """And one that was made without it is made again."""
    images = write_study(tmp_path / "images")
    drawn = segmentation(tmp_path / "drawn", some_mask(SHAPE))
    job = tmp_path / "job"
    job.mkdir()
    for paths in (images, [*images, drawn], [drawn, *images]):
        content = {"instances": [str(path) for path in paths], "created_at": CREATED}
        (job / "job.json").write_text(json.dumps(content))
        result = reconstruct_job(job, recipe())
    assert [acquisition.mask is not None for acquisition in seen] == [False, True]
    assert report(result)["source"]["mask"] == "segmentation 1.2.3.77.1"


def test_a_mask_that_comes_after_the_map_makes_a_revision(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    images = [describe(path, 0.0, "1") for path in write_study(tmp_path / "images")]
    drawn = describe(segmentation(tmp_path / "drawn", some_mask(SHAPE)), 50.0, "2")
    for known in (images, [*images, drawn], [*images, drawn]):
        (found,) = group(known, 1e4, 60.0, frozenset())
        place(store, found, 1e4)
        for job in store.jobs(State.READY):
            store.claim(1e4, lease=1, ceiling=3)
            store.advance(job.id, State.RECONSTRUCTING, State.RECONSTRUCTED, 1e4)
    first, second = sorted(store.jobs(), key=lambda job: job.revision)
    assert (first.revision, second.revision) == (1, 2)
    assert set(second.images) - set(first.images) == {"1.2.3.77.1"}


def test_what_the_store_keeps_of_a_segmentation_is_what_was_described(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    drawn = describe(segmentation(tmp_path / "drawn", some_mask(SHAPE)), 0.0, "1")
    store.add_instance(drawn)
    assert store.instances(drawn.study_instance_uid) == [drawn]
    assert drawn.brain_of


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_receiver_admits_a_segmentation_of_one_bit(tmp_path: Path, syntax: UID) -> None:
    drawn = dcmread(segmentation(tmp_path / "drawn", some_mask(SHAPE)))
    encoded = encode(drawn, syntax)

    def admitted(content: bytes) -> str:
        return admit(
            content,
            sop_class_uid=drawn.SOPClassUID,
            sop_instance_uid=drawn.SOPInstanceUID,
            transfer_syntax=syntax,
        )

    assert admitted(encoded) == drawn.StudyInstanceUID
    with pytest.raises(NotAdmitted):
        admitted(encoded[:-60])


def test_inspect_tells_of_it_beforehand(tmp_path: Path) -> None:
    write_study(tmp_path)
    segmentation(tmp_path / "brain", some_mask(SHAPE))
    (found,) = inspect(tmp_path, ())["acquisitions"]
    assert any("the site's own (segmentation 1.2.3.77.1" in warning for warning in found["warnings"])
