"""Spatial phase unwrapping along the most reliable path, and the reliability itself.

ROMEO (Dymerska et al. 2021, doi:10.1002/mrm.28563): every edge between two neighbouring voxels gets a weight in
[0, 1]; a region grows over the best edge first.  The order is Prim's minimum spanning tree over the edge costs, and
that tree does not depend on where it starts: one seed for each connected region is enough.  A fringe line that ends
inside the object (a true phase singularity) has poor edges around it, so the tree goes round and never through it.

An edge's weight is the product of the reference software's (ROMEO.jl) phase coherence, phase gradient coherence and
magnitude coherence, each w as 0.1 + 0.9 w; of its weight of the darker end, without that floor and with the 99th
percentile in the place of the largest magnitude; and of a phase linearity that is not the reference's.  There it is
max(0, 1 − |b₁|/2) max(0, 1 − |b₂|/2), b the wrapped second difference of the phase in radian at either end of the edge,
and 0.9 next to the border.  Here it is 1 − (|b₁| + |b₂|)/2π, b the difference of the wrapped steps, and an end without
a further voxel has no bend.  The product is 0 as soon as one bend is beyond 2 rad, as noise makes them in dark voxels,
and to it steps of 3 and −3 rad lie straight; the sum still tells the better of two poor edges.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.intensity import percentile
from reconstruction.pieces import box_of

TWO_PI = 2 * math.pi

SMALLEST = np.finfo(np.float32).tiny
"""Keeps 0 / 0 from being a number that is none."""

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


FULL_TURN, TURN_PER_RADIAN, HALF = np.float32(TWO_PI), np.float32(1 / TWO_PI), np.float32(0.5)
ONE, NOTHING, INVERSE_PI = np.float32(1), np.float32(0), np.float32(1 / math.pi)
FLOOR, REST = np.float32(WEIGHT_FLOOR), np.float32(1 - WEIGHT_FLOOR)


@njit(cache=True, inline="always")
def wrap(angle: np.float32) -> np.float32:
    """The angle in [−π, π)."""
    return angle - FULL_TURN * np.floor(angle * TURN_PER_RADIAN + HALF)


@njit(cache=True, inline="always")
def _weight(
    step: np.float32, later_step: np.float32, small: np.float32, big: np.float32, bend: np.float32
) -> np.float32:
    """The weight of one edge.  step, later_step: wrapped differences over the edge, the second as
    the first echo's.  small, big: magnitudes, 1 for the brightness that counts as full."""
    phase_coherence = ONE - abs(step) * INVERSE_PI
    gradient_coherence = max(NOTHING, ONE - abs(step - later_step))
    phase_linearity = max(NOTHING, ONE - bend * TURN_PER_RADIAN)
    share = small / max(big, SMALLEST)
    magnitude_coherence = share * share
    magnitude_weight = HALF + HALF * min(ONE, small)
    product = FLOOR + REST * phase_coherence
    product *= FLOOR + REST * gradient_coherence
    product *= FLOOR + REST * phase_linearity
    product *= FLOOR + REST * magnitude_coherence
    return product * magnitude_weight


@njit(cache=True, error_model="numpy")
def _line(
    lines: tuple[FloatArray, ...],
    mask: tuple[BoolArray, BoolArray],
    scales: tuple[np.float32, np.float32],
    bends: tuple[np.float32, np.float32],
    weights: FloatArray,
) -> None:
    """Weights of the edges between two lines of voxels, with the ones before and behind them.  bends: 1 where these
    count.  scales: what the later echo's phase and the magnitudes are multiplied with."""
    before, here, there, after, later_here, later_there, one, other = lines
    ratio, bright = scales
    for z in range(weights.size):
        step = wrap(there[z] - here[z])
        later_step = wrap(later_there[z] - later_here[z])
        bend = bends[0] * abs(wrap(here[z] - before[z]) - step) + bends[1] * abs(wrap(after[z] - there[z]) - step)
        m, n = bright * one[z], bright * other[z]
        weight = _weight(step, later_step * ratio, min(m, n), max(m, n), bend)
        weights[z] = weight if mask[0][z] and mask[1][z] else NOTHING


@njit(parallel=True, cache=True)
def _edge_weights(
    phase: FloatArray,
    later: FloatArray,
    magnitude: FloatArray,
    mask: BoolArray,
    scales: tuple[np.float32, np.float32],
    weights: FloatArray,
    costs: NDArray[np.uint8],
) -> None:
    """ROMEO's weight of every edge to the next neighbour, or its cost, (x, y, z, 3), into that of the two that is not
    empty; 0 where there is no edge."""
    nx, ny, nz = phase.shape
    for x in prange(nx):
        found = np.empty(nz, np.float32)
        for y in range(ny):
            if not mask[x, y].any():
                continue
            for axis in range(3):
                dx, dy, dz = int(axis == 0), int(axis == 1), int(axis == 2)
                x1, y1 = x + dx, y + dy
                if x1 >= nx or y1 >= ny or nz == dz:
                    continue
                xb, yb, xa, ya = max(x - dx, 0), max(y - dy, 0), min(x1 + dx, nx - 1), min(y1 + dy, ny - 1)
                # Along z the first and the last edge have no neighbour to bend from: they are lines of their own.
                first, last = dz, max(dz, nz - 1 - dz)
                found[nz - 1] = 0
                for start, end in ((0, first), (first, last), (last, nz - dz)):
                    zb, za = max(start - dz, 0), min(end + 2 * dz, nz)
                    bends = (
                        np.float32(x >= dx and y >= dy and start >= dz),
                        np.float32(x1 + dx < nx and y1 + dy < ny and end + 2 * dz <= nz),
                    )
                    size = end - start
                    if size <= 0:
                        continue
                    lines = (
                        phase[xb, yb, zb : zb + size],
                        phase[x, y, start:end],
                        phase[x1, y1, start + dz : end + dz],
                        phase[xa, ya, za - size : za],
                        later[x, y, start:end],
                        later[x1, y1, start + dz : end + dz],
                        magnitude[x, y, start:end],
                        magnitude[x1, y1, start + dz : end + dz],
                    )
                    both = (mask[x, y, start:end], mask[x1, y1, start + dz : end + dz])
                    _line(lines, both, scales, bends, found[start:end])
                if costs.size:
                    _to_costs(found, costs[x, y, :, axis])
                else:
                    for z in range(nz):
                        weights[x, y, z, axis] = found[z]


@njit(cache=True)
def _to_costs(weights: FloatArray, costs: NDArray[np.uint8]) -> None:
    """1 … 255 for weights 1 … 0, and 0 where there is no edge, which has weight 0: the floors leave none to others."""
    for z in range(weights.size):
        if weights[z] > 0:
            costs[z] = max(1, min(COSTS - 1, round((1 - weights[z]) * (COSTS - 1))))


def _weigh(
    phase: FloatArray,
    magnitude: FloatArray,
    mask: BoolArray,
    later: FloatArray | None,
    ratio: float,
    weights: FloatArray,
    costs: NDArray[np.uint8],
) -> None:
    brightest = percentile(magnitude, 99, mask) or 1.0
    later, ratio = (phase, 1.0) if later is None else (later, ratio)
    phase, later, magnitude = (np.ascontiguousarray(volume) for volume in (phase, later, magnitude))
    scales = np.float32(ratio), np.float32(1 / (BRIGHT * brightest))
    _edge_weights(phase, later, magnitude, np.ascontiguousarray(mask), scales, weights, costs)


def edge_costs(
    phase: FloatArray, magnitude: FloatArray, mask: BoolArray, later: FloatArray | None = None, ratio: float = 1.0
) -> NDArray[np.uint8]:
    """ROMEO's cost of every edge from a voxel to its next neighbour along x, y and z.

    phase, magnitude: float32 (x, y, z), radian and arbitrary unit.  mask: bool (x, y, z); edges that leave it are 0.
    later: phase of a second echo; ratio: TE / TE of that echo.  Without it the phase gradient coherence is 1.
    Returns uint8 (x, y, z, 3).
    """
    costs = np.zeros((*phase.shape, 3), np.uint8)
    _weigh(phase, magnitude, mask, later, ratio, np.empty((0, 0, 0, 3), np.float32), costs)
    return costs


def voxel_quality(
    phase: FloatArray, magnitude: FloatArray, mask: BoolArray, later: FloatArray | None = None, ratio: float = 1.0
) -> FloatArray:
    """Mean weight of a voxel's six edges in [0, 1] (ROMEO's quality map), a missing edge counting 0.

    The arguments are those of `edge_costs`.  The weights are not rounded to a byte here: where a threshold is laid on
    the map, a step of it would turn a rounding of the phase into another voxel.  Returns float32 (x, y, z).
    """
    weights = np.zeros((*phase.shape, 3), np.float32)
    _weigh(phase, magnitude, mask, later, ratio, weights, np.empty((0, 0, 0, 3), np.uint8))
    return _mean_of_six(weights)


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
def _grow(
    phase: FloatArray,
    cost: NDArray[np.uint8],
    inside: BoolArray,
    strides: tuple[int, int, int],
    region: NDArray[np.int32],
) -> int:
    """Unwraps `phase` in place; numbers the connected regions from 1.  Returns how many there are.  All flat.

    An edge enters the queue at most once, when the region reaches its first end; so each bucket is a stack of known
    size in one array.
    """
    top = np.zeros(COSTS + 1, np.int64)
    for edge in range(cost.size):
        top[cost[edge] + 1] += 1
    top[1] = 0
    for bucket in range(1, COSTS + 1):
        top[bucket] += top[bucket - 1]
    bottom = top.copy()
    stack = np.empty(bottom[COSTS], np.int32)
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
                edge = int(stack[top[best]])
                known = edge // 3
                voxel = known + strides[edge - 3 * known]
                if region[voxel]:
                    known, voxel = voxel, known
                if region[voxel]:
                    continue
                region[voxel] = regions
                phase[voxel] += FULL_TURN * np.floor((phase[known] - phase[voxel]) * TURN_PER_RADIAN + HALF)
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
    strides = (mask.shape[1] * mask.shape[2], mask.shape[2], 1)
    _grow(unwrapped, costs.ravel(), np.ravel(mask), strides, region)
    _centre(unwrapped, region)
    return unwrapped.reshape(mask.shape), region.reshape(mask.shape)


def unwrapped_in_space(
    phase: FloatArray, magnitude: FloatArray, mask: BoolArray, later: FloatArray | None = None, ratio: float = 1.0
) -> FloatArray:
    """`grow` over `edge_costs`, in the box that holds the mask."""
    unwrapped = np.zeros_like(phase)
    if mask.any():
        box = box_of(mask)
        inside = np.ascontiguousarray(mask[box])
        phase, magnitude = np.ascontiguousarray(phase[box]), np.ascontiguousarray(magnitude[box])
        later = None if later is None else later[box]
        unwrapped[box], _ = grow(phase, edge_costs(phase, magnitude, inside, later, ratio), inside)
    return unwrapped


def _centre(unwrapped: FloatArray, region: NDArray[np.int32]) -> None:
    """Moves each region by the multiple of 2π that brings its median nearest to 0, in place."""
    inside = np.flatnonzero(region)
    sizes = np.bincount(region[inside])[1:]
    if sizes.size == 1:
        turns = np.rint(np.median(unwrapped[inside[:: max(1, inside.size // ENOUGH_VOXELS)]]) / TWO_PI)
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
