"""Projection onto dipole fields: the background is the field of sources outside the brain that comes nearest.

Liu et al. 2011, doi:10.1002/nbm.1670.  The fields of the shim and of the body, which sources nearby would have to add
up to slowly, are fitted first, as solid harmonics.  The brain keeps every voxel.

Where there is signal beside the brain there is tissue, and where there is none there is bone or air, whose χ is many
times as large (Schenck 1996, doi:10.1118/1.597854).  So sources without signal come first: the search is scaled by how
large a source is expected to be (a preconditioner, as in total field inversion: Liu 2017, doi:10.1002/mrm.26331).

Sources that explain a field are not unique, and what keeps them small is that the iteration ends early (conjugate
gradients as regularisation: Hanke 1995, Conjugate Gradient Type Methods for Ill-Posed Problems).  So it ends after a
given number of steps and not at a residual, which rounding lets it reach some steps sooner or later.

What is far from the brain makes a field that a coarse grid can hold, so most steps are made there, and the fine grid
begins with the coarse one's sources: it has only those next to the brain's surface left to find.  Many steps lose the
conjugate directions to rounding, and what was a rounding in the field grows beside the brain's surface; so the coarse
grid's are kept orthogonal, and the fine grid's, being few in float32, need not be.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from reconstruction import dipole, fourier, nested, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import like, to_numpy
from reconstruction.background._harmonics import fit_harmonics
from reconstruction.fourier import Real, Window, zeros_like
from reconstruction.intensity import even_intensity
from reconstruction.nested import Factors
from reconstruction.noise import weights
from reconstruction.solvers import Convergence, conjugate_gradient
from reconstruction.stage import Few

MARGIN_MM = 20.0
"""Empty space between the brain and its periodic image."""

HARMONICS = 2
"""The order of a scanner's shim."""

SIGNAL = 0.25
"""Part of the local mean of tissue above which a voxel beside the brain is tissue: compact bone gives 0.1."""

TISSUE_SOURCE = 0.2
"""How large sources with signal are over those without: fat's 0.6 ppm over bone's −2.1 and air's 9.4, rounded."""


NOTHING_LEFT = 1e-6
"""Residual at which all that could be explained is: masks of few voxels have fewer unknowns than there are steps."""

COARSE_MM = 3.0
"""Voxels of the coarse grid, as nearly as whole numbers of the image's make it."""


def pdf(
    field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
    magnitude: FloatArray | None = None,
    *,
    coarse_iterations: Few = 30,
    iterations: Few = 12,
) -> tuple[FloatArray, BoolArray]:
    """field, noise: ppm, float32 (x, y, z); noise may be inf where nothing is known.  mask: bool.

    magnitude: root sum of squares, float32 (x, y, z), arbitrary unit; without it any voxel outside may be air.
    coarse_iterations: of conjugate gradients on the coarse grid; 0 goes without, and the steps on the image's own grid,
    which are many then, are made in float64.  iterations: on the image's own, where it is finer; more follow the field
    nearer to the brain's surface, and its errors too, and 0 leaves it at what the coarse grid has found.
    Returns the local field in ppm, 0 outside the mask, and the mask unchanged.  Raises NotReconstructible when
    nothing is known.
    """
    xp = array_namespace(field)
    weight, _ = weights(noise, mask)
    field = xp.where(mask, field, 0.0)
    field = field - fit_harmonics(field, weight, mask, geometry, HARMONICS)
    expected = like(_expected_sources(magnitude, geometry), field)

    x, y, z = (max(1, round(COARSE_MM / size)) for size in geometry.voxel_size)
    factors: Factors = (x, y, z) if coarse_iterations > 0 else (1, 1, 1)
    aligned = nested.from_the_mask(to_numpy(mask), factors)
    data, weight, expected, inside = field[aligned], weight[aligned], expected[aligned], mask[aligned]
    some_of_it = nested.mean_of_blocks(xp.astype(inside, xp.float32), factors) > 0
    coarse = Window.around(some_of_it, nested.times(geometry.voxel_size, factors), MARGIN_MM)
    nx, ny, nz = inside.shape
    window = coarse.refined(factors, (nx, ny, nz))
    # Many steps whose directions nobody keeps orthogonal are those without a coarse grid.
    start, precision = None, xp.float32 if coarse_iterations > 0 else xp.float64
    if coarse_iterations > 0:
        mean, share = nested.weighted_means(data, weight, factors)
        size = nested.mean_of_blocks(expected, factors, beyond=1.0)  # behind the image's end may be air
        found, outcome = _sources(
            (xp.astype(mean, precision), xp.astype(share, precision), xp.astype(size, precision)),
            some_of_it, coarse, nested.times(geometry.voxel_size, factors), geometry.b0_direction, coarse_iterations,
            keep=True,
        )  # fmt: skip
        quality.figure("background.coarse_residual", outcome.residual)
        start = nested.between_blocks(found, factors)
    if start is None or (max(factors) > 1 and iterations > 0):
        sources, outcome = _sources(
            (xp.astype(data, precision), xp.astype(weight, precision), xp.astype(expected, precision)),
            inside, window, geometry.voxel_size, geometry.b0_direction, iterations, start,
        )  # fmt: skip
    else:
        sources = xp.where(window.cut(inside), 0.0, start)
    quality.figure("background.iterations", outcome.iterations)
    quality.figure("background.residual", outcome.residual)
    D = dipole.sampled(window.shape, geometry.voxel_size, geometry.b0_direction, field)
    background = zeros_like(field, geometry.shape)
    background[aligned] = xp.astype(window.paste(fourier.apply(D, sources)), field.dtype)
    return xp.astype(xp.where(mask, field - background, 0.0), xp.float32), mask


def _sources(
    data: tuple[NDArray[Real], NDArray[Real], NDArray[Real]],
    mask: BoolArray,
    window: Window,
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float],
    iterations: int,
    start: NDArray[Real] | None = None,
    *,
    keep: bool = False,
) -> tuple[NDArray[Real], Convergence]:
    """χ outside the mask in ppm (the window's shape) after so many steps from `start`, in the data's precision.

    data: field, its weight, and how large sources are expected to be.  keep: all steps, in memory.
    """
    field, weight, expected = data
    xp = array_namespace(field)
    D = dipole.sampled(window.shape, voxel_size, b0_direction, window.cut(mask))
    weight, inside = window.cut(weight), window.cut(mask)
    scale = xp.where(inside, 0.0, window.cut_round(expected, 1.0))

    def back(seen: NDArray[Real]) -> NDArray[Real]:
        return scale * fourier.apply(D, weight * seen)

    begin = xp.zeros_like(weight) if start is None else xp.where(inside, 0.0, start) / xp.where(inside, 1.0, scale)
    scaled, outcome = conjugate_gradient(
        lambda s: back(fourier.apply(D, scale * s)),
        back(window.cut(field)),
        begin,
        tolerance=NOTHING_LEFT,
        max_iterations=iterations,
        orthogonal=keep,
    )
    return scale * scaled, outcome


def _expected_sources(magnitude: FloatArray | None, geometry: Geometry) -> FloatArray:
    """How large a source may be, 1 for bone and air, float32 (x, y, z)."""
    if magnitude is None:
        return np.ones(geometry.shape, np.float32)
    tissue = even_intensity(to_numpy(magnitude)[None], geometry) > SIGNAL
    return np.where(tissue, np.float32(TISSUE_SOURCE), np.float32(1))
