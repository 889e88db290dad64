"""The whole set of outputs: valid, deterministic, and without a word on the patient where none belongs."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.convert.source import Source
from dicom_node.encode import encode
from dicom_node.encode.identity import Identity, local_time
from tests.dicom_node.encode.example import (
    CREATED,
    PLAIN,
    SHAPE,
    STUDY,
    dciodvfy_errors,
    enhanced_source,
    header,
    maps,
    recipe,
    save,
    source,
)

DISPENSABLE = sorted(
    {element.keyword for element in header()}
    - {"StudyInstanceUID", "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "Modality", "Rows", "Columns"}
    - {"FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagingFrequency"}
)
"""What `convert` can do without."""


@pytest.mark.parametrize(
    "made_from",
    [source(), enhanced_source(), source(lossy=True)],
    ids=["classic", "enhanced", "lossy"],
)
@pytest.mark.parametrize("reference", ["csf", "whole_brain", "frontal white matter"])
@pytest.mark.parametrize("r2star", [True, False], ids=["r2star", "no r2star"])
def test_dciodvfy_finds_no_error(
    made_from: Source, reference: str, r2star: bool, tmp_path: Path, dciodvfy_command: Path
) -> None:
    paths = save(
        encode(maps(r2star=r2star, reference=reference), made_from, recipe(), CREATED, PLAIN).datasets, tmp_path
    )
    assert len(paths) == SHAPE[2] * (2 if r2star else 1) + 2
    for path in (paths[0], *paths[-3:]):  # the slices of a series are alike
        assert dciodvfy_errors(dciodvfy_command, path) == []


def test_the_same_job_makes_the_same_bytes() -> None:
    once, again = (encode(maps(), source(), recipe(), CREATED, PLAIN).datasets for _ in range(2))
    assert [_bytes(d) for d in once] == [_bytes(d) for d in again]


def test_another_process_makes_the_same_bytes() -> None:
    """Nothing hangs on the order of a set, which differs from process to process."""
    program = (
        "import hashlib; from tests.dicom_node.encode.test_encode import bytes_of_all;"
        "print(hashlib.sha256(bytes_of_all()).hexdigest())"
    )
    root = Path(__file__).parents[3]
    said = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == hashlib.sha256(bytes_of_all()).hexdigest()


@settings(max_examples=6, deadline=None)
@example(absent=set(DISPENSABLE))
@given(absent=st.sets(st.sampled_from(DISPENSABLE)))
def test_whatever_a_source_leaves_out_the_objects_are_whole(absent: set[str]) -> None:
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        for keyword in absent:
            delattr(dataset, keyword)
    outputs = encode(maps(), source(headers), recipe(), CREATED, PLAIN).datasets
    assert len(outputs) == 2 * SHAPE[2] + 2
    for dataset in outputs:
        assert _bytes(dataset)
        assert dataset.StudyInstanceUID == STUDY
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
            assert keyword in dataset


def test_the_order_of_references_does_not_matter() -> None:
    shuffled = dataclasses.replace(source(), references=tuple(tuple(reversed(r)) for r in source().references))
    assert Identity.of(source(), recipe()) == Identity.of(shuffled, recipe())


def test_other_sources_or_another_recipe_make_other_objects() -> None:
    first = {d.SOPInstanceUID for d in encode(maps(), source(), recipe(), CREATED, PLAIN).datasets}
    other_recipe = {d.SOPInstanceUID for d in encode(maps(), source(), recipe(threshold=0.2), CREATED, PLAIN).datasets}
    other_source = {d.SOPInstanceUID for d in encode(maps(), enhanced_source(), recipe(), CREATED, PLAIN).datasets}
    assert not first & other_recipe
    assert not first & other_source


def test_time_is_only_in_the_dates() -> None:
    """A job made anew for the same images names the same objects: a PACS that has them keeps the ones it has."""
    one, other = (encode(maps(), source(), recipe(), created, PLAIN).datasets for created in (CREATED, CREATED + 86400))
    assert [d.SOPInstanceUID for d in one] == [d.SOPInstanceUID for d in other]
    assert one[0].ContentDate != other[0].ContentDate


def test_dates_are_in_the_zone_that_the_source_names() -> None:
    zoned = header()
    zoned.TimezoneOffsetFromUTC = "+0900"
    assert local_time(0.0, zoned).isoformat() == "1970-01-01T09:00:00"


def test_every_object_belongs_to_the_patient_and_the_study() -> None:
    for dataset in encode(maps(), source(), recipe(), CREATED, PLAIN).datasets:
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "AccessionNumber"):
            assert dataset[keyword].value == header()[keyword].value


def test_an_empty_reference_region_makes_no_segment() -> None:
    emptied = maps()
    empty = dataclasses.replace(emptied.reference, mask=emptied.reference.mask & False)
    segmentation = encode(dataclasses.replace(emptied, reference=empty), source(), recipe(), CREATED, PLAIN).datasets[
        -2
    ]
    assert [s.SegmentLabel for s in segmentation.SegmentSequence] == ["whole brain"]


def _bytes(dataset: Dataset) -> bytes:
    encoded = io.BytesIO()
    dcmwrite(encoded, dataset, enforce_file_format=True)
    return encoded.getvalue()


def bytes_of_all() -> bytes:
    return b"".join(map(_bytes, encode(maps(), source(), recipe(), CREATED, PLAIN).datasets))


def test_malformed_patient_values_are_passed_on_and_not_talked_about(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """The archive gets what the scanner wrote; a log must not."""
    headers = tuple(header(i) for i in range(SHAPE[2]))
    for dataset in headers:
        for keyword, vr, value in (
            ("PatientBirthDate", "DA", b"SECRET"),
            ("PatientAge", "AS", b"SECRET"),
            ("PatientID", "LO", b"SECRET" * 20),
            ("PatientName", "PN", b"SECRET" * 20 + b"\xff"),
        ):
            tag = Tag(keyword)
            dataset._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    for dataset in encode(maps(), source(headers), recipe(), CREATED, PLAIN).datasets:
        assert b"SECRET" * 20 in _bytes(dataset)
        assert dataset.PatientBirthDate == "SECRET"
    said = "".join(capfd.readouterr()) + "".join(str(warning.message) for warning in recwarn)
    assert "SECRET" not in said
