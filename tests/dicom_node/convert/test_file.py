from __future__ import annotations

import functools
import io
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.convert import file
from dicom_node.convert.header import MALFORMED
from tests.dicom_node.convert.scans import noise
from tests.simulation.recoded import LOSSLESS, UNCOMPRESSED, recode
from tests.simulation.siemens import write_siemens


def _parts(dataset: Dataset) -> list[tuple[object, ...]]:
    """Everything that is read of a dataset, items of sequences too; elements that cannot be parsed as such."""
    found: list[tuple[object, ...]] = []
    for tag in tuple(dataset.keys()):
        try:
            element = dataset[tag]
        except MALFORMED as error:
            found.append((tag, type(error)))
            continue
        value = [_parts(item) for item in element.value] if isinstance(element.value, Sequence) else repr(element.value)
        found.append((tag, element.VR, value))
    return found


def _header(content: bytes) -> tuple[object, ...]:
    """By the walk or by pydicom, whichever it is for."""
    stream = io.BytesIO(content)
    try:
        header, end = file.header_of(stream, content)
    except MALFORMED as error:
        return (type(error),)
    return _parts(header.file_meta), _parts(header), header.original_encoding, header.original_character_set, end


def _header_by_pydicom(content: bytes) -> tuple[object, ...]:
    stream = io.BytesIO(content)
    try:
        header = dcmread(stream, stop_before_pixels=True, force=True)
    except MALFORMED as error:
        return (type(error),)
    end = stream.tell()
    return _parts(header.file_meta), _parts(header), header.original_encoding, header.original_character_set, end


@functools.cache
def _image(syntax: str) -> bytes:
    """With sequences of both kinds, private elements, empty ones and names in another character set."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3"
    dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "Müller^Jörg", "", None
    dataset.ImagePositionPatient = ["1.5", "-2", "1e2"]
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "Schädel"
    outer = Dataset()
    outer.PurposeOfReferenceCodeSequence = [inner]
    dataset.SourceImageSequence = [outer, Dataset()]
    dataset.ReferencedImageSequence = [outer]
    dataset["ReferencedImageSequence"].is_undefined_length = True
    dataset.ReferencedImageSequence[0].is_undefined_length_sequence_item = True
    dataset.private_block(0x0051, "SIEMENS MR HEADER", create=True).add_new(0x0F, "LO", "HEA;HEP")
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.PixelRepresentation = 2, 3, 16, 0
    dataset.PixelData = bytes(range(12))
    dataset["PixelData"].VR = "OW"
    dataset.ensure_file_meta()
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


SYNTAX = st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian])


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_the_usual_file_is_walked_and_says_what_pydicom_says(syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = _header_by_pydicom(_image(syntax))
    monkeypatch.setattr(file, "dcmread", None)
    assert _header(_image(syntax)) == expected


@given(SYNTAX, st.integers(0, 1 << 12), st.binary(min_size=1, max_size=4), st.integers(0, 4))
@example(ExplicitVRLittleEndian, 128, b"dicm", 4)
@settings(max_examples=150, deadline=None)
def test_whatever_is_written_over_it_the_header_is_pydicoms(syntax: str, at: int, new: bytes, over: int) -> None:
    """Bytes are exchanged, put in and taken out, also in the file meta information and in sequences."""
    whole = _image(syntax)
    at = 128 + at % (len(whole) - 128)
    damaged = whole[:at] + new + whole[at + over :]
    assert _header(damaged) == _header_by_pydicom(damaged)


@given(SYNTAX, st.integers(0, 1 << 12))
@settings(max_examples=100, deadline=None)
def test_wherever_it_is_cut_off_the_header_is_pydicoms(syntax: str, at: int) -> None:
    cut = _image(syntax)[: at % len(_image(syntax))]
    assert _header(cut) == _header_by_pydicom(cut)


def test_pixels_beyond_what_was_read_are_pydicoms(tmp_path: Path) -> None:
    whole = _image(ExplicitVRLittleEndian)
    header, end = file.header_of(io.BytesIO(whole), whole[:400])
    assert (_parts(header.file_meta), _parts(header)) == _header_by_pydicom(whole)[:2]
    assert end == _header_by_pydicom(whole)[4]


@pytest.mark.parametrize("name", [*UNCOMPRESSED, *LOSSLESS])
def test_images_have_their_pixels(name: str, tmp_path: Path) -> None:
    for path in recode(write_siemens(noise(shape=(32, 32, 4), echo_times=(4e-3,)), tmp_path), name)[:2]:
        found, expected = file.image_of(path), dcmread(path)
        assert _parts(found) == _parts(expected)
        assert _parts(found.file_meta) == _parts(expected.file_meta)
