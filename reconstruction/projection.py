"""The darkest of a slab of slices: what lies across the slices, as veins do, is seen along its length."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray, Geometry

SLAB_MM = 10.0
"""Thickness that is usual for susceptibility-weighted images (Haacke 2009, doi:10.3174/ajnr.A1400: 8 to 10 mm)."""


def minimum_projection(
    volume: FloatArray, mask: BoolArray, geometry: Geometry, thickness_mm: float = SLAB_MM
) -> FloatArray:
    """The smallest value within a slab round each slice, float32 (x, y, z): a slab that slides, slice by slice.

    volume: float32 (x, y, z).  mask: bool (x, y, z); only its voxels are looked for, so that skull and air over the
    vertex do not blacken the brain below.  What has none of them in its slab keeps its own value.
    The slab has an odd number of slices, its thickness as near to thickness_mm as that allows.
    """
    half = round((thickness_mm / geometry.voxel_size[2] - 1) / 2)
    if half < 1:
        return volume.copy()
    projected = np.empty_like(volume)
    _project(volume, mask, half, projected)
    return projected


@njit(parallel=True, cache=True)
def _project(volume: FloatArray, mask: BoolArray, half: int, projected: FloatArray) -> None:
    nx, ny, nz = volume.shape
    for x in prange(nx):
        for y in range(ny):
            line = np.where(mask[x, y], volume[x, y], np.float32(np.inf))
            least = line.copy()
            for shift in range(1, min(half, nz - 1) + 1):
                for z in range(nz - shift):
                    least[z] = min(least[z], line[z + shift])
                    least[nz - 1 - z] = min(least[nz - 1 - z], line[nz - 1 - z - shift])
            projected[x, y] = np.where(np.isfinite(least), least, volume[x, y])
