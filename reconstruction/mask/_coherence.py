"""Where phase means something, and the shape of what is left."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.region_growing import edge_costs, voxel_quality


def coherence(phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...]) -> FloatArray:
    """ROMEO's quality of the first echo, all voxels taken as neighbours, float32 (x, y, z).

    phase: float32 (echo, x, y, z), radian.  magnitude: float32 (x, y, z), of the first echo.  echo_times: s.
    """
    later, ratio = (phase[1], echo_times[0] / echo_times[1]) if len(echo_times) > 1 else (None, 1.0)
    return voxel_quality(edge_costs(phase[0], magnitude, np.ones(magnitude.shape, bool), later, ratio))


def opened(mask: BoolArray, geometry: Geometry, radius_mm: float) -> BoolArray:
    """Opening with a ball; the edge of the volume is no edge of the mask."""
    shrunk = _distance(mask, geometry) > radius_mm
    return mask & (_distance(~shrunk, geometry) <= radius_mm)


def largest_piece(mask: BoolArray) -> BoolArray:
    """The largest of the pieces that share faces; nothing where there is none."""
    pieces, count = ndimage.label(mask)
    if count == 0:
        return np.zeros_like(mask)
    return np.asarray(pieces == 1 + int(np.argmax(np.bincount(pieces.ravel())[1:])))


def _distance(mask: BoolArray, geometry: Geometry) -> FloatArray:
    """mm from each voxel of the mask to the nearest voxel outside it; infinite where there is none."""
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    return np.asarray(ndimage.distance_transform_edt(mask, sampling=geometry.voxel_size), np.float32)
