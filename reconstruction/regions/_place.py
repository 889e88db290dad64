"""Moves a small nucleus as a whole to where the map shows it, where it plainly lies beside its place.

A registration follows what many voxels agree on, so that a nucleus of some millimetres may lie half its width beside
where a brain has it, without a voxel of its own to tell.  Among the places near by, that one is its own where it stands
out of its surroundings most, if by so much more than where the atlas puts it that noise and chance do not do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.pieces import Box
from reconstruction.regions._images import CHI_LIMITS_PPM
from reconstruction.regions._refine import CLEAR, deviation
from reconstruction.regions._sampling import sampled

LARGEST_ML = 2.0
"""Larger nuclei (caudate, putamen) are held by their many voxels."""

REACH_MM, STEP_MM = 2.0, 0.5
"""Places looked at: within half a nucleus' width."""

FAR = 0.06
"""Part of what it stands out by that a place loses for a distance of 1 mm, and four times as much for 2 mm."""

PLAINLY = 1.25
"""How many times as much a nucleus stands out at another place before it goes there: noise makes one of many places
stand out a little more than the right one."""

CORE, RING = 0.2, (-3.0, -0.8)
"""Depths (about mm) of what stands out, and of what it stands out of."""

ENOUGH = 1000
"""Voxels of each, spread evenly, that tell as much as all."""


def placed(
    outlines: Mapping[str, tuple[Box, FloatArray]],
    names: tuple[str, ...],
    chi: FloatArray,
    mask: BoolArray,
    geometry: Geometry,
) -> dict[str, tuple[Box, FloatArray]]:
    """The depths of all regions; small ones of `names` may be moved, the largest first, none into another."""
    found = dict(outlines)
    taken = np.zeros(mask.shape, np.int16)
    sizes = {name: int((found[name][1] > 0).sum()) for name in names if name in found}
    for name in sizes:
        taken[found[name][0]] += found[name][1] > 0
    shifts = _shifts()
    for name in sorted(sizes, key=lambda one: -sizes[one]):
        if not 0 < sizes[name] * geometry.voxel_volume <= 1000 * LARGEST_ML:
            continue
        box, depth = found[name]
        taken[box] -= depth > 0
        shift = _better(chi[box], mask[box] & (taken[box] == 0), depth, shifts, geometry)
        if shift.any():
            depth = ndimage.shift(depth, shift / geometry.voxel_size, order=1, mode="nearest")
            found[name] = box, depth
        taken[box] += depth > 0
    return found


def _shifts() -> NDArray[np.float64]:
    """(shift, 3) in mm, the shortest first."""
    steps = np.arange(-REACH_MM, REACH_MM + STEP_MM / 2, STEP_MM)
    shifts = np.array([*product(steps, repeat=3)])
    squares = (shifts**2).sum(1)
    nearest: NDArray[np.float64] = shifts[np.argsort(squares, kind="stable")]
    return nearest[: np.count_nonzero(squares <= REACH_MM**2)]


def _better(
    chi: FloatArray, free: BoolArray, depth: FloatArray, shifts: NDArray[np.float64], geometry: Geometry
) -> NDArray[np.float64]:
    """The shift in mm to where χ shows the nucleus, 0 where that is not plain.  free: where no other nucleus lies."""
    inside, (low, high) = depth > CORE, RING
    ring = (depth > low) & (depth < high)
    if not inside.any() or not ring.any():
        return shifts[0]
    images = np.stack([np.clip(chi, *CHI_LIMITS_PPM), free]).astype(np.float32)

    def at_shifts(where: BoolArray) -> tuple[FloatArray, FloatArray]:
        """χ and how free the place is, (shift, voxel)."""
        voxels = np.argwhere(where)[:: max(1, int(where.sum()) // ENOUGH)]
        places = (voxels[None] + (shifts / geometry.voxel_size)[:, None]).astype(np.float32)
        value, own = sampled(images, places.transpose(2, 0, 1)[..., None])[..., 0]
        return value, own

    core, own = at_shifts(inside)
    around, others = at_shifts(ring)
    around = np.where(others > 0.5, around, np.nan)
    known = (own.max(axis=1) > 0) & (others.max(axis=1) > 0.5)
    if not known[0]:
        return shifts[0]
    level = (own * core).sum(1) / np.maximum(own.sum(1), np.finfo(np.float32).tiny)
    beside = np.full(len(shifts), np.nan)
    beside[known] = np.nanmedian(around[known], axis=1)
    contrast = np.where(known, level - beside, 0)
    scores = contrast * own.mean(1) * (1 - FAR * (shifts**2).sum(1))
    best = int(scores.argmax())
    spread = deviation(around[best][others[best] > 0.5])
    plain = scores[best] > PLAINLY * max(0.0, scores[0]) and contrast[best] > CLEAR * spread
    return shifts[best if plain else 0]
