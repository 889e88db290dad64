"""CLEAR-SWI: all echoes combined at their best SNR, shading taken out, weighted by a sigmoid of the field.

Eckstein et al. 2021, doi:10.1016/j.neuroimage.2021.118175.
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.intensity import even_intensity
from reconstruction.stage import Positive
from reconstruction.weighting._high_pass import high_pass

BRIGHT = 0.8
"""Quantile of the evened magnitude in the mask that scales the softplus (the reference software's)."""

BEND, SHARPNESS = 0.5, 2.0
"""The softplus bends at half of that quantile, over a width that is the bend over this (the reference software's)."""


def clear_swi(
    magnitude: FloatArray,
    local_field: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    strength: Positive = 4.0,
    high_pass_mm: float = 4.0,
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
    if softplus:
        image = softened(image, BEND * float(np.quantile(image[mask], BRIGHT)))
    field = high_pass(local_field, mask, geometry, high_pass_mm)
    positive = field[field > 0]
    width = 10 / strength * float(np.median(positive)) if positive.size else 1.0
    return np.asarray(image * sigmoid_mask(field / np.float32(width)), np.float32)


def sigmoid_mask(field: FloatArray) -> FloatArray:
    """(1 + tanh(1 − x)) / 2 of the field over its width: 0.88 where there is no field."""
    return np.asarray((1 + np.tanh(1 - field)) / 2, np.float32)


def softened(image: FloatArray, bend: float) -> FloatArray:
    """log(1 + exp(k (x − bend))) / k, moved so that 0 stays 0: flat below the bend, of slope 1 above it."""
    if bend <= 0:
        return image
    k = np.float32(SHARPNESS / bend)
    curve = np.logaddexp(np.float32(0), k * (image - np.float32(bend))) / k
    return np.asarray(curve - np.logaddexp(0, -SHARPNESS) / k, np.float32)
