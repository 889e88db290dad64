"""Projection onto dipole fields: the background is the field of sources outside the brain that comes nearest.

Liu et al. 2011, doi:10.1002/nbm.1670.  The fields of the shim and of the body, which sources nearby would have to add
up to slowly, are fitted first, as solid harmonics.  The brain keeps every voxel.

Sources that explain a field are not unique, and what keeps them small is that the iteration ends early (conjugate
gradients as regularisation: Hanke 1995, Conjugate Gradient Type Methods for Ill-Posed Problems).  So it ends after a
given number of steps and not at a residual, which rounding lets it reach two steps sooner or later, 1.4 ppb of χ in a
simulated head; and it runs in float64, since float32 loses the conjugate directions, and what was a rounding in the
field becomes four to twenty times as much beside the brain's surface.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from reconstruction import dipole, fourier, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.background._harmonics import fit_harmonics
from reconstruction.fourier import Window
from reconstruction.noise import weights
from reconstruction.solvers import conjugate_gradient

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image."""

HARMONICS = 2
"""The order of a scanner's shim."""


def pdf(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    *,
    iterations: int = 25,
) -> tuple[FloatArray, BoolArray]:
    """field, noise: ppm, float32 (x, y, z); noise may be inf where nothing is known.  mask: bool.

    iterations: of conjugate gradients; more follow the field nearer to the brain's surface, and its errors too.
    Returns the local field in ppm, 0 outside the mask, and the mask unchanged.  Raises NotReconstructible when
    nothing is known.
    """
    xp = array_namespace(field)
    weight, _ = weights(noise, mask)
    field = xp.where(mask, field, 0.0)
    field = field - fit_harmonics(field, weight, mask, geometry, HARMONICS)

    window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
    D = dipole.kernel(window.shape, geometry.voxel_size, geometry.b0_direction, field)
    outside = xp.astype(~window.cut(mask), xp.float64)
    weight = window.cut(weight)

    def back(seen: NDArray[np.float64]) -> NDArray[np.float64]:
        return outside * fourier.apply(D, weight * seen)

    start = xp.astype(window.cut(field), xp.float64)
    sources, outcome = conjugate_gradient(
        lambda s: back(fourier.apply(D, s)),
        back(start),
        xp.zeros_like(start),
        tolerance=0,
        max_iterations=iterations,
    )
    quality.figure("background.iterations", outcome.iterations)
    quality.figure("background.residual", outcome.residual)
    background = window.paste(fourier.apply(D, sources))
    return xp.astype(xp.where(mask, field - background, 0.0), xp.float32), mask
