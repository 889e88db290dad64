"""Total variation with noise weights, for sources in the brain and for the background that is left around it.

    min over χ:  Σ_brain Huber((D χ − f) / σ)  +  τ h/σ̃ Σ_brain w |∇χ|  +  Σ_outside (χ / c)² / 2

Alternating directions with the dipole and the differences diagonal in k-space (FANSI: Milovic 2018,
doi:10.1002/mrm.27073).  Three things differ from it.  The misfit is counted in noise standard deviations σ and τ in
median ones σ̃ over a voxel's edge h, as thresholds are in denoising (Donoho 1995, doi:10.1109/18.382009): a number that
does not depend on field strength, echo times or voxel size.  The misfit grows linearly beyond some σ (MERIT's aim, Liu
2013, doi:10.1002/mrm.24272, as a convex function).  And what background removal has left is modelled as what it is, the
field of sources outside the brain, instead of as an arbitrary harmonic function (weak-harmonic QSM, Milovic 2019,
doi:10.1002/mrm.27483): since both are found together, local sources at the brain's edge are no longer given away to the
background.

Total variation takes off every edge what its penalty is worth: nuclei come out too weak, the more so the noisier the
field is.  So w falls where an edge is known to be.  At first the magnitude says where; once χ has taken shape, χ does
too, and the iteration goes on with the new weights (reweighted ℓ₁: Candès 2008, doi:10.1007/s00041-008-9045-x).

Coarser grids come first, each the beginning of the next (nested iteration), with the multipliers too: what takes many
iterations, the exchange between large parts of the brain and with what lies around them, is done where they cost
little.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np
from array_api_compat import array_namespace

from reconstruction import distance, gradient, nested, quality
from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.arrays import like, to_numpy
from reconstruction.fourier import Window, zeros_like
from reconstruction.intensity import percentile
from reconstruction.inversion._tv_grid import Grid, Terms
from reconstruction.nested import Factors, VoxelSize
from reconstruction.noise import weights
from reconstruction.stage import Count, Positive, Share

MARGIN_MM = 14.0
"""Empty space between the brain and its periodic image: room for the outside sources next to the brain."""

COARSE_MM = 2.5
"""Voxels of the coarsest grid at most: half of a small nucleus' width."""

MOSTLY = 0.5
"""Part of a coarse voxel in the brain from which it counts as brain."""

OUTSIDE_PPM = 1.0
"""c: sources outside, after background removal, are expected to be smaller than bone against tissue (some ppm)."""

STEEP = 90.0
"""Percentile of the magnitude's gradient at which w is half way.  A share of voxels that all count as edges (Liu 2012,
doi:10.1016/j.neuroimage.2011.08.082) takes in noise where there are few edges, and leaves fine detail out where there
are many."""

SHAPED = 0.03
"""Relative change of χ in one iteration below which its edges are where they will be, and nothing swings any more."""

STEEP_CHI = 6.0
"""σ̃/h at which χ is so steep that w is half way.  A share of voxels would free noise where a map has few edges."""

RIM_MM = 4.0
"""From the brain's surface, within which an edge of χ may be what background removal has left, and is not believed."""

TINY = float(np.finfo(np.float32).tiny)


def tv(
    local_field: FloatArray,
    noise: FloatArray,
    mask: BoolArray,
    magnitude: FloatArray,
    geometry: Geometry,
    *,
    strength: float = 0.1,
    edge_weight: Share = 0.1,
    huber: Positive = 4.0,
    tolerance: float = 0.006,
    max_iterations: Count = 80,
) -> FloatArray:
    """χ in ppm, float32 (x, y, z), 0 outside the mask.

    local_field, noise: ppm; noise may be inf where nothing is known.  mask: bool.  magnitude: arbitrary unit.
    strength: τ; larger is smoother.  edge_weight: what w comes down to at the steepest edges of the magnitude and of χ
    (1 ignores both).  huber: σ beyond which the misfit counts linearly.
    tolerance: relative change of χ in one iteration at which to stop; where no coarser grid comes first, no more than
    SHAPED.  max_iterations: at most, on each grid, with each of two sets of weights.
    """
    xp = array_namespace(local_field)
    weight, sigma = weights(noise, mask)
    levels = _levels(mask, geometry)
    aligned = nested.from_the_mask(to_numpy(mask), levels[0])
    known, brain = (mask & xp.isfinite(noise))[aligned], xp.astype(mask[aligned], xp.float32)
    field, weight, magnitude = xp.where(known, local_field[aligned], 0.0), weight[aligned], magnitude[aligned]
    edge = geometry.voxel_volume ** (1 / 3)
    steep = STEEP_CHI * sigma / edge
    terms = Terms(strength * sigma * edge, (sigma / OUTSIDE_PPM) ** 2, huber * sigma, edge)
    coarse: Grid | None = None
    for factors, ratio, window in _grids(levels, brain, geometry):
        voxel_size = nested.times(geometry.voxel_size, factors)
        inside = window.cut(nested.mean_of_blocks(brain, factors)) >= MOSTLY
        data, share = (window.cut(volume) for volume in nested.weighted_means(field, weight, factors))
        of_brain, _ = nested.weighted_means(magnitude, brain, factors)
        w = edge_weights(window.cut(of_brain), inside, voxel_size, edge_weight)
        deep = like(distance.depth(to_numpy(inside), voxel_size) > RIM_MM, inside)
        grid = Grid(window, voxel_size, geometry.b0_direction, inside, data, share, w, terms)
        if coarse is None:
            grid.begin()
        else:
            grid.begin_with(coarse, partial(nested.between_blocks, factors=ratio))
        # From nothing, nothing is told by χ at first, and whoever stops early would stop in mid-swing.
        shaped = coarse is not None
        last = tolerance if shaped and factors == levels[-1] else min(tolerance, SHAPED)
        for stop in (last,) if shaped and last >= SHAPED else (SHAPED, last):
            if shaped:
                grid.penalise(xp.minimum(w, edge_weights(grid.chi, deep, voxel_size, edge_weight, steep)))
            outcome = grid.solve(stop, max_iterations)
            shaped = True
        if factors != levels[-1]:
            quality.figure("inversion.coarse_residual", outcome.residual)
        coarse = grid
    quality.convergence("inversion", outcome)
    chi = zeros_like(local_field, geometry.shape)
    chi[aligned] = window.paste(xp.where(inside, grid.chi, 0.0))
    return chi


def _levels(mask: BoolArray, geometry: Geometry) -> list[Factors]:
    """The image's voxels in one of each grid's, coarsest first; the last is the image's own.

    A grid on which less than half of the mask is inside is none.
    """
    whole = to_numpy(mask)
    chain: list[Factors] = [(1, 1, 1)]
    while True:
        sizes = nested.times(geometry.voxel_size, chain[0])
        x, y, z = (f * 2 if 2 * size <= COARSE_MM else f for f, size in zip(chain[0], sizes, strict=True))
        if (x, y, z) == chain[0]:
            return chain
        part = whole[nested.from_the_mask(whole, (x, y, z))].astype(np.float32)
        inside = nested.mean_of_blocks(part, (x, y, z)) >= MOSTLY
        if 2 * x * y * z * np.count_nonzero(inside) < np.count_nonzero(whole):
            return chain
        chain.insert(0, (x, y, z))


def _grids(levels: list[Factors], brain: FloatArray, geometry: Geometry) -> Iterator[tuple[Factors, Factors, Window]]:
    """For each level: its factors, its voxels in one of the level's before, and its window.

    brain: 1 or 0 (x, y, z).
    """
    covered = nested.mean_of_blocks(brain, levels[0]) > 0
    window = Window.around(covered, nested.times(geometry.voxel_size, levels[0]), MARGIN_MM)
    yield levels[0], (1, 1, 1), window
    for coarse, fine in itertools.pairwise(levels):
        x, y, z = (c // f for c, f in zip(coarse, fine, strict=True))
        nx, ny, nz = (-(-n // f) for n, f in zip(brain.shape, fine, strict=True))
        window = window.refined((x, y, z), (nx, ny, nz))
        yield fine, (x, y, z), window


def edge_weights(
    volume: FloatArray, inside: BoolArray, voxel_size: VoxelSize, edge_weight: float, steep: float | None = None
) -> FloatArray:
    """w: near 1 where the volume is even, and the lower the steeper it is; differences from or to outside are none.

    1 / (1 + (g / g₀)²) of Perona & Malik 1990 (doi:10.1109/34.56205), from `edge_weight` upwards.  steep: g₀ per mm;
    None takes the percentile STEEP of g.
    """
    squares = gradient.squares_within(inside, volume, voxel_size)
    half_way = percentile(to_numpy(squares), STEEP, to_numpy(inside)) if steep is None else steep**2
    weight: FloatArray = 1 - (1 - edge_weight) * squares / (squares + max(half_way, TINY))
    return weight
