"""Projection onto dipole fields: the background is the field of sources outside the brain that comes nearest.

Liu et al. 2011, doi:10.1002/nbm.1670.  The fields of the shim and of the body, which sources nearby would have to add
up to slowly, are fitted first, as solid harmonics.  The brain keeps every voxel.

Where there is signal beside the brain there is tissue, and where there is none there is bone or air, whose χ is many
times as large (Schenck 1996, doi:10.1118/1.597854).  So sources without signal come first: the search is scaled by how
large a source is expected to be (a preconditioner, as in total field inversion: Liu 2017, doi:10.1002/mrm.26331).

Sources that explain a field are not unique, and what keeps them small is that the iteration ends early (conjugate
gradients as regularisation: Hanke 1995, Conjugate Gradient Type Methods for Ill-Posed Problems).  So it ends after a
given number of steps and not at a residual, which rounding lets it reach some steps sooner or later, and it runs in
float64, since float32 loses the conjugate directions, and what was a rounding in the field grows beside the brain's
surface.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from reconstruction import dipole, fourier, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import like, to_numpy
from reconstruction.background._harmonics import fit_harmonics
from reconstruction.fourier import Window
from reconstruction.intensity import even_intensity
from reconstruction.noise import weights
from reconstruction.solvers import conjugate_gradient
from reconstruction.stage import Count

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image."""

HARMONICS = 2
"""The order of a scanner's shim."""

SIGNAL = 0.25
"""Part of the local mean of tissue above which a voxel beside the brain is tissue: compact bone gives 0.1."""

TISSUE_SOURCE = 0.2
"""How large sources with signal are over those without: fat's 0.6 ppm over bone's −2.1 and air's 9.4, rounded."""


def pdf(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    magnitude: FloatArray | None = None,
    *,
    iterations: Count = 25,
) -> tuple[FloatArray, BoolArray]:
    """field, noise: ppm, float32 (x, y, z); noise may be inf where nothing is known.  mask: bool.

    magnitude: root sum of squares, float32 (x, y, z), arbitrary unit; without it any voxel outside may be air.
    iterations: of conjugate gradients; more follow the field nearer to the brain's surface, and its errors too.
    Returns the local field in ppm, 0 outside the mask, and the mask unchanged.  Raises NotReconstructible when
    nothing is known.
    """
    xp = array_namespace(field)
    weight, _ = weights(noise, mask)
    field = xp.where(mask, field, 0.0)
    field = field - fit_harmonics(field, weight, mask, geometry, HARMONICS)

    window = Window.around(mask, geometry.voxel_size, MARGIN_MM)
    D = dipole.sampled(window.shape, geometry.voxel_size, geometry.b0_direction, field)
    expected = like(_expected_sources(magnitude, window, geometry), field)
    scale = xp.where(window.cut(mask), 0.0, xp.astype(expected, xp.float64))
    weight = window.cut(weight)

    def back(seen: NDArray[np.float64]) -> NDArray[np.float64]:
        return scale * fourier.apply(D, weight * seen)

    start = xp.astype(window.cut(field), xp.float64)
    sources, outcome = conjugate_gradient(
        lambda s: back(fourier.apply(D, scale * s)),
        back(start),
        xp.zeros_like(start),
        tolerance=0,
        max_iterations=iterations,
    )
    quality.figure("background.iterations", outcome.iterations)
    quality.figure("background.residual", outcome.residual)
    background = window.paste(fourier.apply(D, scale * sources))
    return xp.astype(xp.where(mask, field - background, 0.0), xp.float32), mask


def _expected_sources(magnitude: FloatArray | None, window: Window, geometry: Geometry) -> FloatArray:
    """How large a source may be, 1 for bone and air, float32 (the window's shape).

    Of what the window adds to the brain's box one half lies behind it and the other before it.
    """
    expected = np.ones(window.shape, np.float32)
    if magnitude is None:
        return expected
    tissue = even_intensity(to_numpy(magnitude)[None], geometry) > SIGNAL
    places, known = [], []
    for box, n, image in zip(window.box, window.shape, window.image, strict=True):
        size, at = box.stop - box.start, np.arange(n)
        at = box.start + np.where(at < size + (n - size) // 2, at, at - n)
        within = (at >= 0) & (at < image)
        places.append(at[within])
        known.append(np.flatnonzero(within))
    expected[np.ix_(*known)] = np.where(tissue[np.ix_(*places)], np.float32(TISSUE_SOURCE), np.float32(1))
    return expected
