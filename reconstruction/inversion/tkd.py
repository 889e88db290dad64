"""Thresholded k-space division: the quickest inversion, with streaks.

Shmueli 2009, doi:10.1002/mrm.22135; its underestimation corrected after Schweser 2013, doi:10.1002/mrm.24405.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from array_api_compat import array_namespace

from reconstruction import dipole, fourier
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.fourier import Shape, Window
from reconstruction.stage import Range

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image."""


def tkd(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    magnitude: FloatArray,
    geometry: Geometry,
    *,
    threshold: Annotated[float, Range(most=2 / 3, above=True)] = 0.19,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field: ppm, float32 (x, y, z).  mask: bool.  noise: of it is used only where it is inf: there the field is
    taken for 0.  magnitude is not used.
    threshold: |D| below which D is replaced by it, sign kept (at most 2/3).
    """
    xp = array_namespace(local_field)
    window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
    D = dipole.sampled(window.shape, geometry.voxel_size, geometry.b0_direction, local_field)
    inverse: FloatArray = xp.copysign(1 / xp.clip(xp.abs(D), threshold, None), D)
    field = window.cut(xp.where(mask & xp.isfinite(noise), local_field, 0.0))
    chi = fourier.apply(inverse / _response(inverse * D, window.shape), field)
    return xp.where(mask, window.paste(chi), 0.0)


def _response(transfer: FloatArray, shape: Shape) -> float:
    """The height of the point-spread function at its own voxel: what a point source is scaled by."""
    xp = array_namespace(transfer)
    total = 2 * xp.sum(transfer, dtype=xp.float64)  # a plane of a half spectrum stands for two,
    total -= xp.sum(transfer[..., 0], dtype=xp.float64)  # but for the first, and the last of an even size
    if shape[2] % 2 == 0:
        total -= xp.sum(transfer[..., -1], dtype=xp.float64)
    return float(total) / float(np.prod(shape))
