"""Spatial phase unwrapping along the most reliable path, and the reliability itself.

ROMEO (Dymerska et al. 2021, doi:10.1002/mrm.28563): every edge between two neighbouring voxels gets a weight in
[0, 1]; a region grows over the best edge first.  The order is Prim's minimum spanning tree over the edge costs, and
that tree does not depend on where it starts: one seed for each connected region is enough.  A fringe line that ends
inside the object (a true phase singularity) has poor edges around it, so the tree goes round and never through it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.intensity import percentile

TWO_PI = 2 * math.pi

COSTS = 256
"""Edge costs are one byte (as in the paper): 1 is the best edge, 255 the worst, 0 is no edge."""

WEIGHT_FLOOR = 0.1
"""Each single weight w enters as 0.1 + 0.9 w, so that no one of them decides alone (ROMEO reference software)."""

BRIGHT = 0.5
"""Fraction of the largest magnitude above which a voxel counts as fully bright (ROMEO's magnitude weight)."""

CANDIDATE_TURNS = (-1, 0, 1)
"""Multiples of 2π tried for a whole head: its mean frequency is never further from the scanner's."""

CLEARLY_BETTER = 0.5
"""A turn further from the scanner's frequency must halve the misfit to be believed."""

ENOUGH_VOXELS = 20000
"""To settle one integer."""


@njit(cache=True, inline="always")
def wrap(angle: float) -> float:
    """The angle in [−π, π)."""
    return angle - TWO_PI * math.floor(angle / TWO_PI + 0.5)


@njit(cache=True, inline="always")
def _weight(
    step: float, later_step: float, ratio: float, small: float, big: float, brightest: float, bend: float
) -> float:
    """The product of ROMEO's weights for one edge.  step, later_step: wrapped differences over the edge."""
    phase_coherence = 1 - abs(step) / math.pi
    gradient_coherence = max(0.0, 1 - abs(step - later_step * ratio))
    phase_linearity = max(0.0, 1 - bend / TWO_PI)
    magnitude_coherence = (small / big) ** 2 if big > 0 else 0.0
    magnitude_weight = 0.5 + 0.5 * min(1.0, small / (BRIGHT * brightest))
    product = WEIGHT_FLOOR + (1 - WEIGHT_FLOOR) * phase_coherence
    product *= WEIGHT_FLOOR + (1 - WEIGHT_FLOOR) * gradient_coherence
    product *= WEIGHT_FLOOR + (1 - WEIGHT_FLOOR) * phase_linearity
    product *= WEIGHT_FLOOR + (1 - WEIGHT_FLOOR) * magnitude_coherence
    return product * magnitude_weight


@njit(parallel=True, cache=True)
def _edge_weights(
    phase: FloatArray, later: FloatArray, ratio: float, magnitude: FloatArray, brightest: float, mask: BoolArray
) -> FloatArray:
    """ROMEO's weight of every edge to the next neighbour, (x, y, z, 3); 0 where there is no edge."""
    nx, ny, nz = phase.shape
    weights = np.zeros((nx, ny, nz, 3), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                if not mask[x, y, z]:
                    continue
                for axis in range(3):
                    dx, dy, dz = int(axis == 0), int(axis == 1), int(axis == 2)
                    x1, y1, z1 = x + dx, y + dy, z + dz
                    if x1 >= nx or y1 >= ny or z1 >= nz or not mask[x1, y1, z1]:
                        continue
                    step = wrap(phase[x1, y1, z1] - phase[x, y, z])
                    later_step = wrap(later[x1, y1, z1] - later[x, y, z])
                    bend = 0.0
                    if x >= dx and y >= dy and z >= dz:
                        bend += abs(wrap(phase[x, y, z] - phase[x - dx, y - dy, z - dz]) - step)
                    if x1 + dx < nx and y1 + dy < ny and z1 + dz < nz:
                        bend += abs(wrap(phase[x1 + dx, y1 + dy, z1 + dz] - phase[x1, y1, z1]) - step)
                    here, there = magnitude[x, y, z], magnitude[x1, y1, z1]
                    weights[x, y, z, axis] = _weight(
                        step, later_step, ratio, min(here, there), max(here, there), brightest, bend
                    )
    return weights


def _weights(
    phase: FloatArray, magnitude: FloatArray, mask: BoolArray, later: FloatArray | None, ratio: float
) -> FloatArray:
    brightest = percentile(magnitude, 99, mask)
    if later is None:
        later, ratio = phase, 1.0
    return _edge_weights(phase, later, ratio, magnitude, brightest or 1.0, mask)


def edge_costs(
    phase: FloatArray, magnitude: FloatArray, mask: BoolArray, later: FloatArray | None = None, ratio: float = 1.0
) -> NDArray[np.uint8]:
    """ROMEO's cost of every edge from a voxel to its next neighbour along x, y and z.

    phase, magnitude: float32 (x, y, z), radian and arbitrary unit.  mask: bool (x, y, z); edges that leave it are 0.
    later: phase of a second echo; ratio: TE / TE of that echo.  Without it the phase gradient coherence is 1.
    Returns uint8 (x, y, z, 3).
    """
    return _costs(_weights(phase, magnitude, mask, later, ratio))


@njit(parallel=True, cache=True)
def _costs(weights: FloatArray) -> NDArray[np.uint8]:
    """1 … 255 for weights 1 … 0, and 0 where there is no edge, which has weight 0: the floors leave none to others."""
    costs = np.zeros(weights.shape, np.uint8)
    for x in prange(weights.shape[0]):
        for y in range(weights.shape[1]):
            for z in range(weights.shape[2]):
                for axis in range(3):
                    weight = weights[x, y, z, axis]
                    if weight > 0:
                        costs[x, y, z, axis] = max(1, min(COSTS - 1, round((1 - weight) * (COSTS - 1))))
    return costs


def voxel_quality(
    phase: FloatArray, magnitude: FloatArray, mask: BoolArray, later: FloatArray | None = None, ratio: float = 1.0
) -> FloatArray:
    """Mean weight of a voxel's six edges in [0, 1] (ROMEO's quality map), a missing edge counting 0.

    The arguments are those of `edge_costs`.  The weights are not rounded to a byte here: where a threshold is laid on
    the map, a step of it would turn a rounding of the phase into another voxel.  Returns float32 (x, y, z).
    """
    return _mean_of_six(_weights(phase, magnitude, mask, later, ratio))


@njit(parallel=True, cache=True)
def _mean_of_six(weights: FloatArray) -> FloatArray:
    nx, ny, nz, _ = weights.shape
    quality = np.zeros((nx, ny, nz), np.float32)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                total = weights[x, y, z, 0] + weights[x, y, z, 1] + weights[x, y, z, 2]
                if x > 0:
                    total += weights[x - 1, y, z, 0]
                if y > 0:
                    total += weights[x, y - 1, z, 1]
                if z > 0:
                    total += weights[x, y, z - 1, 2]
                quality[x, y, z] = total / 6
    return quality


@njit(cache=True)
def _grow(phase: FloatArray, costs: NDArray[np.uint8], mask: BoolArray, region: NDArray[np.int32]) -> int:
    """Unwraps `phase` (flat) in place; numbers the connected regions from 1.  Returns how many there are.

    An edge enters the queue at most once, when the region reaches its first end; so each bucket is a stack of known
    size in one array.
    """
    strides = (mask.shape[1] * mask.shape[2], mask.shape[2], 1)
    inside = mask.ravel()
    cost = costs.ravel()
    top = np.zeros(COSTS + 1, np.int64)
    for edge in range(cost.size):
        top[cost[edge] + 1] += 1
    top[1] = 0
    for bucket in range(1, COSTS + 1):
        top[bucket] += top[bucket - 1]
    bottom = top.copy()
    stack = np.empty(bottom[COSTS], np.int64)
    regions = 0
    for seed in range(inside.size):
        if not inside[seed] or region[seed]:
            continue
        regions += 1
        region[seed] = regions
        voxel = seed
        best = COSTS
        while True:
            for axis in range(3):
                for edge, neighbour in (
                    (3 * voxel + axis, voxel + strides[axis]),
                    (3 * (voxel - strides[axis]) + axis, voxel - strides[axis]),
                ):
                    if edge < 0 or cost[edge] == 0 or region[neighbour]:
                        continue
                    bucket = cost[edge]
                    stack[top[bucket]] = edge
                    top[bucket] += 1
                    best = min(best, bucket)
            found = False
            while best < COSTS:
                if top[best] == bottom[best]:
                    best += 1
                    continue
                top[best] -= 1
                edge = stack[top[best]]
                known = edge // 3
                voxel = known + strides[edge % 3]
                if region[voxel]:
                    known, voxel = voxel, known
                if region[voxel]:
                    continue
                region[voxel] = regions
                phase[voxel] += TWO_PI * math.floor((phase[known] - phase[voxel]) / TWO_PI + 0.5)
                found = True
                break
            if not found:
                break
    return regions


def grow(phase: FloatArray, costs: NDArray[np.uint8], mask: BoolArray) -> tuple[FloatArray, NDArray[np.int32]]:
    """Unwraps in space along the cheapest edges.

    phase: float32 (x, y, z), radian, wrapped.  costs: from `edge_costs`.  mask: bool (x, y, z).
    Returns the unwrapped phase (0 outside the mask) and the number of each voxel's connected region (0 outside).
    Each region is known up to a multiple of 2π, chosen so that its median lies in [−π, π].
    """
    unwrapped = np.where(mask, phase, np.float32(0)).ravel()
    region = np.zeros(mask.size, np.int32)
    _grow(unwrapped, costs, mask, region)
    _centre(unwrapped, region)
    return unwrapped.reshape(mask.shape), region.reshape(mask.shape)


def _centre(unwrapped: FloatArray, region: NDArray[np.int32]) -> None:
    """Moves each region by the multiple of 2π that brings its median nearest to 0, in place."""
    inside = np.flatnonzero(region)
    sizes = np.bincount(region[inside])[1:]
    if sizes.size == 1:
        turns = np.rint(np.median(unwrapped[inside]) / TWO_PI)
        if turns:
            unwrapped[inside] -= np.float32(TWO_PI * turns)
        return
    order = inside[np.argsort(region[inside], kind="stable")]
    turns_of = np.zeros(sizes.size + 1, np.float32)
    end = 0
    for number, size in enumerate(sizes, start=1):
        start, end = end, end + size
        turns_of[number] = np.rint(np.median(unwrapped[order[start:end]]) / TWO_PI)
    unwrapped -= np.float32(TWO_PI) * turns_of[region]


def settle_turns(
    unwrapped: FloatArray, witness: FloatArray, factor: float, weight: FloatArray, mask: BoolArray
) -> None:
    """Fixes the global multiple of 2π of an unwrapped phase by another phase that grows with it, in place.

    unwrapped: float32 (x, y, z), radian.  witness: wrapped phase that should be factor · unwrapped.  weight: what each
    voxel's word is worth.  Where the factor is an integer the witness cannot tell, and the turn that brings the median
    nearest to 0 is taken.
    """
    voxels = np.flatnonzero(mask)
    voxels = voxels[:: max(1, voxels.size // ENOUGH_VOXELS)]
    phase, other, worth = unwrapped.ravel()[voxels], witness.ravel()[voxels], weight.ravel()[voxels]

    def misfit(turns: int) -> float:
        error = other - factor * (phase + TWO_PI * turns)
        return float(np.sum(worth * np.abs(error - TWO_PI * np.rint(error / TWO_PI))))

    middle = float(np.median(phase)) if phase.size else 0.0
    best, *others = sorted(CANDIDATE_TURNS, key=lambda turns: abs(middle + TWO_PI * turns))
    for turns in others:
        if misfit(turns) < CLEARLY_BETTER * misfit(best):
            best = turns
    unwrapped[mask] += np.float32(TWO_PI * best)
