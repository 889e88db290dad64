from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from dicom_node.convert import pixels
from dicom_node.convert.pixels import stored_values
from dicom_node.errors import NotConvertible


def image(stored: int = 12, signed: int = 0, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """Random bits, in those above BitsStored too."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = 5, 7, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, stored, stored - 1
    dataset.PixelRepresentation = signed
    dataset.PixelData = np.random.default_rng(stored).integers(0, 1 << 16, 35).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


@given(st.integers(1, 16), st.sampled_from((0, 1)), st.sampled_from((ExplicitVRLittleEndian, ImplicitVRLittleEndian)))
def test_plain_images_are_read_as_pydicom_reads_them(stored: int, signed: int, syntax: str) -> None:
    dataset = image(stored, signed, syntax)
    (expected,) = iter_pixels(dataset, raw=True)
    (found,) = stored_values(dataset, [0])
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def _truncated(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-2]


def _without_bits(dataset: Dataset) -> None:
    del dataset.BitsAllocated


@pytest.mark.parametrize("spoil", [_truncated, _without_bits])
def test_what_is_wrong_with_pixels_is_said(spoil: Callable[[Dataset], None]) -> None:
    dataset = image()
    spoil(dataset)
    with pytest.raises(NotConvertible, match="cannot be decoded"):
        list(stored_values(dataset, [0]))


@pytest.mark.parametrize("syntax", [ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_encodings_are_left_to_pydicom(syntax: str) -> None:
    assert pixels._plain(image(syntax=syntax)) is None


def test_a_decoder_that_panics_is_an_error_like_any_other() -> None:
    """The run of a segment goes one byte beyond the frame: pylibjpeg-rle indexes past its end."""
    dataset = image(stored=16)
    dataset.file_meta.TransferSyntaxUID = RLELossless
    size = dataset.Rows * dataset.Columns
    fits, too_long = bytes([257 - size, 7]), bytes([257 - (size + 1), 7])
    segments = struct.pack("<16L", 2, 64, 64 + len(fits), *[0] * 13) + fits + too_long
    dataset.PixelData = encapsulate([segments])
    dataset["PixelData"].VR = "OB"
    with pytest.raises(NotConvertible, match="the pixels cannot be decoded: index out of bounds"):
        list(stored_values(dataset, [0]))
