from __future__ import annotations

import dataclasses
import io

import pytest
from pydicom import dcmwrite
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_node.convert.source import Source
from dicom_node.encode import encode
from dicom_node.encode.file import Writer
from dicom_node.encode.identity import local_time
from dicom_node.encode.quantity import QSM
from dicom_node.encode.series import encode_series
from tests.dicom_node.encode.example import CREATED, EVERYTHING, enhanced_source, maps, recipe, source

WHEN = local_time(CREATED, Dataset())


def _by_pydicom(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("images", [source(), enhanced_source()], ids=["classic", "enhanced"])
def test_every_object_is_written_as_pydicom_writes_it(images: Source) -> None:
    write = Writer()
    encoded = encode(maps(), images, recipe(), CREATED, EVERYTHING)
    for dataset in encoded.datasets:
        assert write(dataset) == _by_pydicom(dataset), dataset.SOPClassUID.name


def test_a_shared_element_is_written_in_each_datasets_own_characters() -> None:
    datasets = encode_series(maps(), QSM, source(), recipe(), WHEN)[:2]
    shared = DataElement("StudyDescription", "LO", "Schädel")
    for dataset in datasets:
        dataset.add(shared)
    other = Dataset(dict(datasets[1].items()))
    other.file_meta = datasets[1].file_meta
    other.pop("SpecificCharacterSet")
    other.SpecificCharacterSet = "ISO_IR 192"
    write = Writer()
    latin, unicode = write(datasets[0]), write(other)
    assert "Schädel".encode("latin-1") in latin
    assert "Schädel".encode() in unicode


def test_ambiguous_elements_are_settled_by_the_dataset_that_holds_them() -> None:
    dataset = encode_series(maps(), QSM, source(), recipe(), WHEN)[0]
    dataset.SmallestImagePixelValue = -5
    item = Dataset()
    item.SmallestImagePixelValue = -6
    dataset.ReferencedImageSequence = [item]
    assert dataset["SmallestImagePixelValue"].VR == "US or SS"
    assert Writer()(dataset) == _by_pydicom(dataset)


def test_what_differs_between_the_slices_of_a_source_differs_between_those_of_the_map() -> None:
    given = source()
    headers = list(given.headers)
    headers[1] = Dataset(dict(headers[1].items()))
    for keyword in ("PatientAge", "SliceThickness", "FrameOfReferenceUID", "ScanningSequence"):
        headers[1].pop(keyword, None)
    headers[1].AcquisitionTime = "111213.5"
    varied = dataclasses.replace(given, headers=tuple(headers))
    usual = encode_series(maps(), QSM, given, recipe(), WHEN)
    found = encode_series(maps(), QSM, varied, recipe(), WHEN)
    assert "PatientAge" not in found[1]
    assert found[1].AcquisitionTime == "111213.5"
    assert found[1].SliceThickness == maps().geometry.voxel_size[2]
    assert found[1].ScanningSequence == "GR"
    assert found[1].FrameOfReferenceUID not in ("", usual[1].FrameOfReferenceUID)
    for other in (0, 2):
        assert found[other] == usual[other]
