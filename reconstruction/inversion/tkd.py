"""Thresholded k-space division: the quickest inversion, with streaks.

Shmueli 2009, doi:10.1002/mrm.22135; its underestimation corrected after Schweser 2013, doi:10.1002/mrm.24405.
"""

from __future__ import annotations

import numpy as np

from reconstruction import dipole, fourier
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.fourier import Shape, Window

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image."""


def tkd(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    magnitude: FloatArray,
    geometry: Geometry,
    *,
    threshold: float = 0.19,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field: ppm, float32 (x, y, z).  mask: bool.  noise and magnitude are not used.
    threshold: |D| below which D is replaced by it, sign kept (at most 2/3).
    """
    window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
    D = dipole.kernel(window.shape, geometry.voxel_size, geometry.b0_direction)
    inverse: FloatArray = np.copysign(1 / np.maximum(np.abs(D), np.float32(threshold)), D)
    field = window.cut(np.where(mask, local_field, np.float32(0)))
    chi = fourier.apply(inverse / _response(inverse * D, window.shape), field)
    return np.where(mask, window.paste(chi), np.float32(0)).astype(np.float32)


def _response(transfer: FloatArray, shape: Shape) -> np.float32:
    """The height of the point-spread function at its own voxel: what a point source is scaled by."""
    weight = np.full(transfer.shape[2], 2.0)  # a plane of a half spectrum stands for two,
    weight[0] = 1.0  # but for the first, and the last of an even size
    if shape[2] % 2 == 0:
        weight[-1] = 1.0
    return np.float32((transfer * weight).sum() / np.prod(shape))
