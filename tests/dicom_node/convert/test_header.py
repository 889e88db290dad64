from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue

from dicom_node.convert.header import MALFORMED, numbers, tag, text, values, words
from dicom_node.convert.planes import detached

ELEMENTS = {
    "EchoTime": "4.25",
    "PixelSpacing": ["0.5", "0.75"],
    "ImageType": ["ORIGINAL", "PRIMARY", "P"],
    "SOPInstanceUID": "1.2.3",
    "Rows": 256,
    "AcquisitionTime": "111213.5",
    "DiffusionBValue": 0.5,
    "AcquisitionNumber": "3",
    "Manufacturer": "SIÉMENS",
    "SequenceName": "",
}


def _read(implicit: bool, characters: str = "ISO_IR 100", **changed: object) -> Dataset:
    dataset = Dataset()
    dataset.SpecificCharacterSet = characters
    for keyword, value in (ELEMENTS | changed).items():
        setattr(dataset, keyword, value)
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = implicit, True
    write_dataset(file, dataset)
    return dcmread(io.BytesIO(file.getvalue()), force=True)


@pytest.mark.parametrize("implicit", [False, True])
def test_values_are_pydicoms_however_often_they_were_seen(implicit: bool) -> None:
    for _ in range(2):
        header, same = _read(implicit), _read(implicit)
        for keyword in ELEMENTS:
            element = same[keyword]
            expected = () if element.is_empty else tuple(element.value) if element.VM > 1 else (element.value,)
            assert values(header, keyword) == expected
            assert [type(value) for value in values(header, keyword)] == [type(value) for value in expected]


def test_names_are_read_in_each_headers_own_characters() -> None:
    assert text(_read(False), "Manufacturer") == text(_read(False, "ISO_IR 192"), "Manufacturer") == "SIÉMENS"


def test_equal_bytes_mean_what_their_representation_says() -> None:
    header = _read(False, Rows=0x3031, AcquisitionNumber="10")
    assert values(header, "Rows") == (0x3031,)
    assert values(header, "AcquisitionNumber") == (10,)


def test_reading_changes_nothing_for_those_who_read_after() -> None:
    header = _read(False)
    before = numbers(header, "PixelSpacing", 2)
    header.PixelSpacing = [1, 2]
    assert before == (0.5, 0.75)
    assert numbers(header, "PixelSpacing", 2) == (1, 2)
    assert words(_read(False), "PixelSpacing") == ("0.5", "0.75")


def test_what_a_header_shares_with_others_is_its_own_when_it_is_detached() -> None:
    def header() -> Dataset:
        raw = RawDataElement(tag("ImageType"), "CS", 16, b"ORIGINAL\\PRIMARY", 0, False, True)
        return Dataset({raw.tag: raw})

    one = detached(header())
    one.ImageType = "DERIVED"
    assert detached(header()).ImageType == ["ORIGINAL", "PRIMARY"]


@pytest.mark.parametrize("character_set", ["", "ISO_IR 100", "ISO_IR 192", "ISO_IR 13", "\\ISO 2022 IR 87", "GB18030"])
@given(st.binary(max_size=12) | st.text(st.characters(max_codepoint=127), max_size=12).map(str.encode))
def test_text_is_what_pydicom_makes_of_it_in_its_own_character_set(character_set: str, value: bytes) -> None:
    def header() -> Dataset:
        raw = RawDataElement(tag("Manufacturer"), "LO", len(value), value, 0, False, True)
        found = Dataset({raw.tag: raw})
        found.set_original_encoding(False, True, convert_encodings(character_set.split("\\")))
        return found

    try:
        expected = header()[tag("Manufacturer")].value
    except MALFORMED:
        expected = ""
    expected = expected if isinstance(expected, MultiValue) else [expected] if expected else []
    assert values(header(), "Manufacturer") == tuple(expected)
