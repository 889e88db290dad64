"""The box, the pieces and the holes of a mask; voxels that share faces belong together."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction.acquisition import BoolArray

Box = tuple[slice, slice, slice]


def box_of(mask: BoolArray) -> Box:
    """The smallest box that holds a mask, which must not be empty."""
    seen = np.asarray(mask.any(axis=0))
    x, y, z = (np.flatnonzero(line) for line in (mask.any(axis=(1, 2)), seen.any(axis=1), seen.any(axis=0)))
    return slice(int(x[0]), int(x[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1), slice(int(z[0]), int(z[-1]) + 1)


def centroid(mask: BoolArray) -> tuple[float, float, float]:
    """Of the voxels of a mask, which must not be empty; in voxels."""
    counts = [np.count_nonzero(mask, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    x, y, z = (float(count @ np.arange(count.size) / count.sum()) for count in counts)
    return x, y, z


def largest_piece(mask: BoolArray) -> BoolArray:
    """The largest of the pieces; nothing where there is none."""
    largest = np.zeros_like(mask)
    if not mask.any():
        return largest
    box = box_of(mask)
    pieces, _ = ndimage.label(mask[box])
    largest[box] = pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    return largest


def without_holes(mask: BoolArray) -> BoolArray:
    """The mask and what it encloses; what lies at the edge of the volume is not enclosed."""
    filled = mask.copy()
    if not mask.any():
        return filled
    box = box_of(mask)
    outside, _ = ndimage.label(np.pad(~mask[box], 1, constant_values=True))
    filled[box] = (outside != outside[0, 0, 0])[1:-1, 1:-1, 1:-1]
    return filled
