"""Stored pixel values, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from dicom_node.convert.header import MALFORMED
from dicom_node.errors import NotConvertible


def stored_values(source: Path | Dataset, frames: Sequence[int]) -> Iterator[NDArray[Any]]:
    """The stored values (row, column) of the given frames, from 0, one after the other.

    source: a path, of which a frame at a time is read, or a dataset that has its pixels already.

    Unused high bits are cleared or filled with the sign.  Raises NotConvertible where they cannot be decoded.
    """
    try:
        # raw: no colour conversion; pydicom masks the bits above BitsStored all the same.
        yield from iter_pixels(source, indices=list(frames), raw=True)
    except (RuntimeError, MemoryError, *MALFORMED) as error:
        raise NotConvertible(f"the pixels cannot be decoded: {error}") from error


def rescaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    """slope × stored + intercept, computed in double precision."""
    return (np.asarray(stored, dtype=np.float64) * slope + intercept).astype(np.float32)
