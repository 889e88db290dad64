from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
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
