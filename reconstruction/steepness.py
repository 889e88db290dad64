"""How well a voxel's field can be known where the background is steep.

The measured field of a voxel is that at the centroid of its signal, not at its centre, and what background removal
puts there is a value at its centre.  Where tissue, dephasing or coil move the centroid by some hundredths of a voxel,
the two differ by as many hundredths of the background's change over the voxel.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray

CENTROID_SHIFT = 0.03
"""Voxels: the order of what dephasing and coils do to a centroid; chosen on simulated heads."""


def steepness_noise(background: FloatArray, mask: BoolArray) -> FloatArray:
    """The standard deviation that steepness adds, unit of `background`, float32 (x, y, z), 0 outside the mask.

    background: the field removed, float32 (x, y, z).  Only neighbours within the mask are compared; of the two along
    an axis the one that differs more counts.
    """
    noise = np.zeros_like(background)
    _steepest(background, mask, noise)
    return noise


@njit(parallel=True, cache=True)
def _steepest(background: FloatArray, mask: BoolArray, noise: FloatArray) -> None:
    nx, ny, nz = background.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                here, total = background[x, y, z], np.float32(0)
                for dx, dy, dz in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
                    largest = np.float32(0)
                    for i, j, k in ((x + dx, y + dy, z + dz), (x - dx, y - dy, z - dz)):
                        if 0 <= i < nx and 0 <= j < ny and 0 <= k < nz and mask[i, j, k]:
                            largest = max(largest, abs(background[i, j, k] - here))
                    total += largest * largest
                noise[x, y, z] = CENTROID_SHIFT * math.sqrt(total)
