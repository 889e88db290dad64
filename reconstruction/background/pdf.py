"""Projection onto dipole fields: the background is the field of sources outside the brain that comes nearest.

Liu et al. 2011, doi:10.1002/nbm.1670.  The fields of the shim and of the body, which sources nearby would have to add
up to slowly, are fitted first, as solid harmonics.  The brain keeps every voxel.
"""

from __future__ import annotations

import numpy as np

from reconstruction import dipole, fourier, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.background._harmonics import fit_harmonics
from reconstruction.fourier import Window
from reconstruction.solvers import conjugate_gradient

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image; more changes nothing (20, 40 and 80 mm measured)."""

HARMONICS = 2
"""The order of a scanner's shim."""

BEST_WEIGHT = 4.0
"""A voxel counts for no more than this over the median: below half the median noise other errors take over."""


def pdf(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    tolerance: float = 3e-3,
    max_iterations: int = 100,
) -> tuple[FloatArray, BoolArray]:
    """field, noise: ppm, float32 (x, y, z); noise may be inf where nothing is known.  mask: bool.

    tolerance: of the normal equations' residual relative to their right side.
    Returns the local field in ppm, 0 outside the mask, and the mask unchanged.
    """
    known = mask & np.isfinite(noise) & (noise > 0)
    weight = np.zeros(mask.shape, np.float32)
    weight[known] = np.minimum((np.median(noise[known]) / noise[known]) ** 2, BEST_WEIGHT)
    field = np.where(mask, field, np.float32(0))
    field -= fit_harmonics(field, weight, mask, geometry, HARMONICS)

    window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
    D = dipole.kernel(window.shape, geometry.voxel_size, geometry.b0_direction)
    outside = (~window.cut(mask)).astype(np.float32)
    weight = window.cut(weight)

    def back(seen: FloatArray) -> FloatArray:
        return outside * fourier.apply(D, weight * seen)

    sources, outcome = conjugate_gradient(
        lambda s: back(fourier.apply(D, s)),
        back(window.cut(field)),
        np.zeros(window.shape, np.float32),
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    quality.convergence("background", outcome)
    background = window.paste(fourier.apply(D, sources))
    return np.where(mask, field - background, np.float32(0)).astype(np.float32), mask
