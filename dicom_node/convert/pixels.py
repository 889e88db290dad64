"""Stored pixel values, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.convert.header import MALFORMED, tag, text, whole
from dicom_node.errors import NotConvertible

_PLAIN_SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def stored_values(source: Path | Dataset, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The stored values (row, column) of the given frames, from 0, one after the other.

    source: a path, of which a frame at a time is read, or a dataset that has its pixels already.

    Unused high bits are cleared or filled with the sign.  Raises NotConvertible where they cannot be decoded.
    """
    with decoding("the pixels"):
        plane = _plain(source) if isinstance(source, Dataset) and list(frames) == [0] else None
        if plane is not None:
            yield plane
            return
        # raw: no colour conversion; pydicom masks the bits above BitsStored all the same.
        yield from iter_pixels(source, indices=list(frames), raw=True)


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Whatever a decoder makes of broken pixels is NotConvertible.

    A decoder in Rust (pylibjpeg-rle) panics, and a panic is no Exception: it would end the worker without a word.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (RuntimeError, MemoryError, *MALFORMED)) or type(error).__module__ == _OF_RUST:
            raise NotConvertible(f"{what} cannot be decoded: {error}") from error
        raise


_OF_RUST = "pyo3_runtime"


def _plain(header: Dataset) -> NDArray[Any] | None:
    """The only frame of an uncompressed image in little endian; None of any other image, which pydicom decodes.

    Most images are such, and pydicom takes longer to find that out than to read them.
    """
    if text(header.file_meta, "TransferSyntaxUID") not in _PLAIN_SYNTAXES:
        return None
    names = ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation", "SamplesPerPixel")
    rows, columns, allocated, stored, signed, samples = (whole(header, name) for name in names)
    if rows is None or columns is None or stored is None or allocated != 16 or samples != 1 or signed not in (0, 1):
        return None
    if not 0 < stored <= allocated or whole(header, "NumberOfFrames") not in (None, 1):
        return None
    element = header.get_item(tag("PixelData"))  # as it was read: it needs no parsing
    content = None if element is None else element.value
    if not isinstance(content, bytes) or len(content) != 2 * rows * columns:
        return None
    plane = np.frombuffer(content, "<i2" if signed else "<u2").reshape(rows, columns)
    unused = allocated - stored
    return plane << unused >> unused if unused else plane


def rescaled(stored: NDArray[Any], slope: float, intercept: float, out: NDArray[np.float32]) -> None:
    """out = slope × stored + intercept, computed in double precision."""
    exact = np.multiply(stored, slope, dtype=np.float64)
    np.add(exact, intercept, out=out, casting="same_kind")
