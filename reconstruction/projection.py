"""The darkest of a slab of slices: what lies across the slices, as veins do, is seen along its length."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

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
    darkest = ndimage.minimum_filter1d(np.where(mask, volume, np.float32(np.inf)), 2 * half + 1, axis=2, mode="nearest")
    return np.where(np.isfinite(darkest), darkest, volume).astype(np.float32)
