"""CLEAR-SWI: all echoes combined at their best SNR, shading taken out, weighted by a sigmoid of the field.

Eckstein et al. 2021, doi:10.1016/j.neuroimage.2021.118175.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.intensity import even_intensity, percentile
from reconstruction.stage import Millimetres, Positive
from reconstruction.weighting._high_pass import high_pass

BRIGHT = 0.8
"""Quantile of the evened magnitude in the mask that scales the softplus (the reference software's)."""

BEND, SHARPNESS = 0.5, 2.0
"""The softplus bends at half of that quantile, over a width that is the bend over this (the reference software's)."""

AT_ZERO = np.float32(math.log1p(math.exp(-SHARPNESS)))


def clear_swi(
    magnitude: FloatArray,
    local_field: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    strength: Positive = 4.0,
    high_pass_mm: Millimetres = 4.0,
    softplus: bool = True,
) -> FloatArray:
    """The evened root sum of squares over the echoes times the phase mask, 1 is tissue, float32 (x, y, z).

    magnitude: float32 (echo, x, y, z).  local_field: Hz, float32 (x, y, z), the background removed.  mask: bool
    (x, y, z), where the field is known.  strength: larger makes a steeper sigmoid.  high_pass_mm: standard deviation of
    the Gaussian whose mean is taken off the field (the paper's has 4 voxels).  softplus: darken what is dark, by which
    veins stand out.
    The sigmoid's width follows from the median of the positive field, so that echo times and field strength need no
    setting.  Shading is taken out as for the brain mask, in place of the paper's own estimate of it.
    """
    image = even_intensity(magnitude, geometry)
    if not mask.any():
        return image
    bend = BEND * percentile(image, 100 * BRIGHT, mask) if softplus else 0.0
    field = high_pass(local_field, mask, geometry, high_pass_mm)
    positive = percentile(field, 50, field > 0)
    _weigh(image, field, bend, 10 / strength * positive if positive > 0 else 1.0)
    return image


@njit(parallel=True, cache=True)
def _weigh(image: FloatArray, field: FloatArray, bend: float, width: float) -> None:
    """The image, softened where the bend is not 0, times the phase mask; in place."""
    nx, ny, nz = image.shape
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                value = softened(image[x, y, z], bend) if bend > 0 else image[x, y, z]
                image[x, y, z] = value * sigmoid_mask(field[x, y, z] / np.float32(width))


@njit(cache=True)
def sigmoid_mask(field: np.float32) -> np.float32:
    """(1 + tanh(1 − x)) / 2 of the field over its width: 0.88 where there is no field."""
    return np.float32(1) / (np.float32(1) + np.exp(np.float32(2) * field - np.float32(2)))


@njit(cache=True)
def softened(value: np.float32, bend: float) -> np.float32:
    """log(1 + exp(k (x − bend))) / k, moved so that 0 stays 0: flat below the bend, of slope 1 above it."""
    k = np.float32(SHARPNESS / bend)
    above = k * (value - np.float32(bend))
    curve = np.maximum(above, np.float32(0)) + np.log1p(np.exp(-np.abs(above)))
    return (curve - AT_ZERO) / k
