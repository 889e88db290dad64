"""How well a voxel's field can be known where the background is steep.

The measured field of a voxel is that at the centroid of its signal, not at its centre, and what background removal
puts there is a value at its centre.  Where tissue, dephasing or coil move the centroid by some hundredths of a voxel,
the two differ by as many hundredths of the background's change over the voxel.
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray

CENTROID_SHIFT = 0.03
"""Voxels: the order of what dephasing and coils do to a centroid; chosen on simulated heads."""


def steepness_noise(background: FloatArray, mask: BoolArray) -> FloatArray:
    """The standard deviation that steepness adds, unit of `background`, float32 (x, y, z), 0 outside the mask.

    background: the field removed, float32 (x, y, z).  Only neighbours within the mask are compared; of the two along
    an axis the one that differs more counts.
    """
    total = np.zeros_like(background)
    for axis in range(3):
        ahead, behind = _halves(axis)
        change = np.where(mask[ahead] & mask[behind], np.diff(background, axis=axis) ** 2, np.float32(0))
        largest = np.zeros_like(background)
        largest[ahead] = change
        largest[behind] = np.maximum(largest[behind], change)
        total += largest
    return np.where(mask, CENTROID_SHIFT * np.sqrt(total), 0).astype(np.float32)


def _halves(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All but the first, and all but the last, along `axis`."""
    ahead, behind = [slice(None)] * 3, [slice(None)] * 3
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    return tuple(ahead), tuple(behind)
