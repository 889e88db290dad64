"""The field without its wide parts: what nuclei and cortex do to the field round them is no vein."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.pieces import box_of
from reconstruction.smoothing import smooth

LEAST_WEIGHT = 1e-3
"""Share of the mask under the Gaussian; a voxel of the mask always has more."""


def high_pass(field: FloatArray, mask: BoolArray, geometry: Geometry, sigma_mm: float) -> FloatArray:
    """The field less its Gaussian mean over the mask, float32 (x, y, z), 0 outside the mask.

    sigma_mm: standard deviation; 0 leaves the field as it is.
    """
    zero = np.float32(0)
    if sigma_mm <= 0 or not mask.any():
        return np.where(mask, field, zero)
    box = box_of(mask)
    held = mask[box]
    inside = np.where(held, field[box], zero)
    weight = np.maximum(smooth(held.astype(np.float32), geometry, sigma_mm), np.float32(LEAST_WEIGHT))
    passed = np.zeros(mask.shape, np.float32)
    passed[box] = np.where(held, inside - smooth(inside, geometry, sigma_mm) / weight, zero)
    return passed
