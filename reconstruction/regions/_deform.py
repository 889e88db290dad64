"""Bends what an affine map left: a greedy diffeomorphic registration, all contrasts at once.

Steps along the smoothed derivative of the local correlation are composed, each of at most half a voxel, from coarse
grids to fine: the demons' way (Vercauteren et al. 2009, doi:10.1016/j.neuroimage.2008.10.040) with the likeness of
`_correlation`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.regions._correlation import add_force, patches
from reconstruction.regions._gaussian import gaussian
from reconstruction.regions._images import FWHM
from reconstruction.regions._sampling import resliced, sampled

LONGEST_STEP = 0.5
"""Voxels that a step moves what it moves most."""

STEP_SD, WARP_SD = 2.0, 0.7
"""SD in voxels of the Gaussians over each step and over the whole warp."""

FLAT = 0.05
"""Of a contrast's standard deviation: what varies less within a patch is flat."""


@dataclass(frozen=True)
class Level:
    """One voxel of this level is `every` voxels of the images."""

    every: int
    steps: int


def bend(
    fixed: Mapping[str, FloatArray],
    moving: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    where: BoolArray,
    levels: tuple[Level, ...],
    start: FloatArray | None = None,
) -> FloatArray:
    """Displacements (3, x, y, z) in voxels: where in `moving` each voxel of `fixed` is found.

    fixed, moving: images by name on one grid.  weights: by the same names.  where: voxels of `fixed` that count.
    start: displacements to go on from.
    """
    spreads = {name: float(fixed[name][where].std()) for name in fixed}
    used = [name for name in fixed if weights[name] > 0 and spreads[name] > 0]
    images = [np.stack([by[name] / np.float32(spreads[name]) for name in used]) for by in (fixed, moving)]
    warp = np.zeros((3, *where.shape), np.float32) if start is None else start
    for level in levels:
        shape = tuple(max(2, round(n / level.every)) for n in where.shape)
        one, other = (_resized(_without_detail(image, level.every), shape) for image in images)
        counts = (_resized(where[None].astype(np.float32), shape)[0] > 0.5).astype(np.float32)
        scale = np.array(shape, np.float32).reshape(3, 1, 1, 1) / np.array(where.shape).reshape(3, 1, 1, 1)
        bent = _resized(warp, shape) * scale.astype(np.float32)
        around = [patches(image, counts) for image in one]
        for _ in range(level.steps):
            force = np.zeros_like(bent)
            for name, image, near, template in zip(used, one, around, pulled(other, bent), strict=True):
                add_force(image, near, template, counts, np.float32(weights[name]), np.float32(FLAT**2), force)
            step = _limited(_smooth(force, STEP_SD))
            bent = _smooth(step + pulled(bent, step), WARP_SD)
        warp = _resized(bent / scale.astype(np.float32), where.shape)
    return warp


def pulled(images: FloatArray, warp: FloatArray) -> FloatArray:
    """Images (n, x, y, z) at x + warp (3, x, y, z) voxels."""
    return sampled(images, np.indices(warp.shape[1:], dtype=np.float32) + warp)


def _limited(step: FloatArray) -> FloatArray:
    longest = float(np.sqrt((step**2).sum(0).max()))
    return step * np.float32(LONGEST_STEP / longest) if longest > 0 else step


def _smooth(field: FloatArray, sd: float) -> FloatArray:
    return gaussian(field, sd)


def _without_detail(images: FloatArray, every: float) -> FloatArray:
    """Smoothed to voxels `every` times as large."""
    sd = np.sqrt(every**2 - 1) / FWHM
    return _smooth(images, sd) if sd > 0 else images


def _resized(images: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """(n, x, y, z) over the same space with another number of voxels."""
    if images.shape[1:] == shape:
        return images
    ratio = np.array(images.shape[1:]) / np.array(shape)
    return resliced(images, np.diag(ratio), (ratio - 1) / 2, shape)
