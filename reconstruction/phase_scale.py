"""The scale of the phase, by what a wrong one does to its jumps, its noise and its growth over echoes.

A phase that is wrong by k jumps by 2π k instead of 2π, however smooth the field; its noise is k times what magnitude
allows (σ_φ = σ_M / M, Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618), and later echoes leave the line through
the first.  Slices that alternate in sign show in the products of neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction.acquisition import Acquisition, BoolArray, FloatArray
from reconstruction.evidence import DECISIVE, DOUBTFUL, SUFFICIENT, WEAK, Evidence
from reconstruction.noise import MAD
from reconstruction.preview import Preview

TURN = 2 * math.pi

SAMPLES = 200_000
"""Voxels at which neighbours are compared: thousands of jumps among them in most heads."""

BRIGHT = 0.3
"""Part of the bright signal (98th percentile) above which phase noise is well below a radian."""

FLAT = 0.01
"""Radian over an echo that is no phase at all."""

RANGE_TOLERANCE = 0.02
"""Of π: Philips' π is 3.142, and −4096 … 4094 is not symmetric."""

CONTINUOUS, JUMP = 1.0, 1.0
"""Radian between neighbours to either side of a jump, and by which the jump leaves the line through them."""

ENOUGH_JUMPS = 60

HEIGHT_TOLERANCE = 0.06
"""Of 2π: real and simulated heads have their jumps within 0.02 of it."""

WINDOW, PEAK = 0.35, 2.0
"""Radian to either side of the commonest height, and by how much it must outnumber the window below: noise falls off
steadily, so that it has no such height."""

OTHER_JUMPS = 0.3
"""Jumps of one other height as a share of those of 2π: 0.15 and less in heads, 0.4 for wrapped 1.27 times the phase."""

NOISE_RATIO = (0.7, 1.4)
"""σ_φ M / σ_M: 0.8 … 1.15 in real and simulated heads."""

WRONG_NOISE_RATIO = (0.6, 1.65)
"""A halved or doubled phase lies beyond.  So may magnitude that was denoised on its own: this alone decides nothing."""

MISFIT = (0.35, 1.2)
"""Median radian by which later echoes leave the line: they follow it below the first, random phase has π/2."""

FIELD_SD_PPM = (0.005, 3.0)
"""SD of the field over a shimmed brain is 0.1 … 0.4 ppm; above the second, echo times or field strength are
wrong; below the first it is no head, but may be an even phantom."""

ALTERNATING = -0.5
"""Median over slices of Re Σ S_z S*_{z+1} / Σ |S_z S_{z+1}|: 0.9 in heads, −0.9 where every second slice is negated."""


def evidence_of_scale(acquisition: Acquisition, coarse: Preview) -> tuple[Evidence, ...]:
    """Of the scale, and of slices that belong together: a phase that alternates between them is of no use either."""
    inside = coarse.on(acquisition.geometry, coarse.mask)
    first, last = (_Echo.of(acquisition, echo, inside) for echo in (0, -1))
    if first.voxels.size == 0:
        return (Evidence("signal", 0.0, 0.0, "there is no signal to judge the scale by"),)
    ends = _ends(acquisition.phase)
    spread = float(np.ptp(ends, axis=1).min())
    if spread < FLAT:
        return (Evidence("range", spread, -DECISIVE, "an echo's phase is the same everywhere: it is no phase"),)
    agreement = [_coherence(first, axis) for axis in range(3)]
    alternating = [axis for axis in range(3) if agreement[axis] < ALTERNATING]
    axes = tuple(axis for axis in range(3) if axis not in alternating)
    return (
        _slices(min(agreement), alternating),
        _range(float(np.abs(ends).max())),
        _jumps([first, last], axes),
        _noise(first),
        *_evolution(coarse),
        *_spread(coarse),
    )


@njit(parallel=True, cache=True)
def _ends(phase: FloatArray) -> FloatArray:
    """The least and the largest of each echo, (echo, 2)."""
    echoes, nx = phase.shape[:2]
    ends = np.empty((nx, echoes, 2), np.float32)
    for x in prange(nx):
        for echo in range(echoes):
            plane = phase[echo, x].ravel()
            low = high = plane[0]
            for value in plane:
                low, high = min(low, value), max(high, value)
            ends[x, echo, 0], ends[x, echo, 1] = low, high
    for x in range(1, nx):
        ends[0, :, 0] = np.minimum(ends[0, :, 0], ends[x, :, 0])
        ends[0, :, 1] = np.maximum(ends[0, :, 1], ends[x, :, 1])
    return ends[0].copy()


@dataclass(frozen=True, eq=False)
class _Echo:
    """One echo, flat, and bright voxels in it whose neighbours (−1 … 2 along each axis) are bright too.

    Those of the brain, where one was found: beside it lies fat, whose phase differs from water's by any angle.
    """

    magnitude: FloatArray
    phase: FloatArray
    shape: tuple[int, int, int]
    voxels: NDArray[np.intp]

    @classmethod
    def of(cls, acquisition: Acquisition, echo: int, brain: BoolArray) -> _Echo:
        magnitude, phase = acquisition.magnitude[echo].ravel(), acquisition.phase[echo].ravel()
        shape = acquisition.geometry.shape
        bright = magnitude > BRIGHT * np.percentile(magnitude[:: max(1, magnitude.size // SAMPLES)], 98)
        if brain.any():
            bright &= brain.ravel()
        inside = bright.reshape(shape).copy()
        for axis in range(3):
            lead = np.moveaxis(inside, axis, 0)
            lead[0] = lead[-2:] = False
        voxels = np.flatnonzero(inside)
        voxels = voxels[:: max(1, voxels.size // SAMPLES)]
        found = cls(magnitude, phase, shape, voxels)
        kept = np.ones(voxels.size, bool)
        for axis, offset in product(range(3), (-1, 1, 2)):
            kept &= bright[voxels + offset * found.stride(axis)]
        return cls(magnitude, phase, shape, voxels[kept])

    def stride(self, axis: int) -> int:
        return int(np.prod(self.shape[axis + 1 :]))

    def phase_at(self, axis: int, offset: int) -> NDArray[np.float64]:
        return self.phase[self.voxels + offset * self.stride(axis)].astype(np.float64)


def _coherence(echo: _Echo, axis: int) -> float:
    """Median over the planes across an axis of Re Σ S S'* / Σ |S S'|, S' being the next plane's."""
    step = echo.phase_at(axis, 1) - echo.phase_at(axis, 0)
    weight = echo.magnitude[echo.voxels] * echo.magnitude[echo.voxels + echo.stride(axis)]
    plane = echo.voxels // echo.stride(axis) % echo.shape[axis]
    real = np.bincount(plane, weight * np.cos(step), echo.shape[axis])
    norm = np.bincount(plane, weight, echo.shape[axis])
    return float(np.median(real[norm > 0] / norm[norm > 0])) if norm.any() else 1.0


def _slices(lowest: float, alternating: list[int]) -> Evidence:
    if not alternating:
        return Evidence("neighbouring_planes", lowest, 0.0, f"neighbouring planes agree by {lowest:.2f}")
    name = " and ".join(("column", "row", "slice")[axis] for axis in alternating)
    return Evidence(
        "neighbouring_planes", lowest, -DECISIVE, f"every second {name} has the opposite sign (agreement {lowest:+.2f})"
    )


def _range(reach: float) -> Evidence:
    """reach: radian, of the furthest voxel."""
    if reach > (1 + RANGE_TOLERANCE) * math.pi:
        return Evidence("range", reach, -DECISIVE, f"phase reaches {reach:.2f} rad, more than π")
    if reach > (1 - RANGE_TOLERANCE) * math.pi:
        return Evidence("range", reach, 0.0, "phase fills −π … π")
    return Evidence("range", reach, 0.0, f"phase reaches {reach:.2f} rad only")


def _jumps(echoes: list[_Echo], axes: tuple[int, ...]) -> Evidence:
    """The height of jumps between bright neighbours, told from the line through those to either side."""
    heights = np.sort(np.concatenate([_heights(echo, axis) for echo in echoes for axis in axes] or [np.zeros(0)]))
    height, count = _commonest(heights)
    if count < ENOUGH_JUMPS:
        return Evidence("jumps", 0.0, 0.0, "phase hardly jumps, which leaves its scale open")
    share = height / TURN
    if abs(share - 1) > HEIGHT_TOLERANCE:
        sentence = f"phase jumps by {height:.2f} rad instead of 2π, as if it were multiplied by {share:.2f}"
        return Evidence("jumps", share, -DECISIVE, sentence)
    other, others = _commonest(heights[np.abs(heights - TURN) > 2 * WINDOW])
    if others > OTHER_JUMPS * count:
        sentence = f"phase jumps not only by 2π but by {other:.2f} rad too, as if it were scaled and wrapped again"
        return Evidence("jumps", other / TURN, -DECISIVE, sentence)
    return Evidence("jumps", share, SUFFICIENT, f"phase jumps by {height:.2f} rad, as 2π should")


def _heights(echo: _Echo, axis: int) -> NDArray[np.float64]:
    before, here, there, after = (echo.phase_at(axis, offset) for offset in (-1, 0, 1, 2))
    left, right = here - before, after - there
    height = np.abs(there - here - (left + right) / 2)
    return height[(height > JUMP) & (np.abs(left) < CONTINUOUS) & (np.abs(right) < CONTINUOUS)]


def _commonest(heights: NDArray[np.float64]) -> tuple[float, int]:
    """The middle of the fullest window that stands out, and how many are in it.  heights: ascending."""
    starts = heights[heights > JUMP + 2 * WINDOW]
    if starts.size == 0:
        return 0.0, 0
    lower, first, end = (np.searchsorted(heights, starts + shift) for shift in (-2 * WINDOW, 0.0, 2 * WINDOW))
    counts = np.where(end - first > PEAK * (first - lower), end - first, 0)
    best = int(counts.argmax())
    if not counts[best]:
        return 0.0, 0
    return float(np.median(heights[first[best] : end[best]])), int(counts[best])


def _noise(echo: _Echo) -> Evidence:
    """Finest detail of phase against that of magnitude (see `noise.noise_of_detail`): sum over a cube's corners."""
    corners = list(product((0, 1), repeat=3))
    offsets = [sum(c * echo.stride(axis) for axis, c in enumerate(corner)) for corner in corners]
    signs = [(-1) ** sum(corner) for corner in corners]
    voxels = echo.voxels[echo.voxels + max(offsets) < echo.phase.size]
    phase = sum(s * echo.phase[voxels + o].astype(np.float64) for s, o in zip(signs, offsets, strict=True))
    magnitude = sum(s * echo.magnitude[voxels + o].astype(np.float64) for s, o in zip(signs, offsets, strict=True))
    phase = phase - TURN * np.rint(phase / TURN)
    noise_of_magnitude = float(np.median(np.abs(magnitude / echo.magnitude[voxels]))) / MAD
    if not noise_of_magnitude > 0:
        return Evidence("noise", 0.0, 0.0, "magnitude has no noise to measure that of phase by")
    ratio = float(np.median(np.abs(phase))) / MAD / noise_of_magnitude
    low, high = WRONG_NOISE_RATIO
    score = WEAK if NOISE_RATIO[0] < ratio < NOISE_RATIO[1] else 0.0 if low < ratio < high else -DOUBTFUL
    return Evidence("noise", ratio, score, f"phase noise is {ratio:.2f} times what magnitude allows")


def _evolution(coarse: Preview) -> tuple[Evidence, ...]:
    if coarse.misfit.size == 0:
        return ()
    misfit = float(np.median(np.abs(coarse.misfit), axis=1).max())
    score = WEAK if misfit < MISFIT[0] else -WEAK if misfit > MISFIT[1] else 0.0
    return (
        Evidence("evolution", misfit, score, f"the last echo leaves the line of the first two by {misfit:.2f} rad"),
    )


def _spread(coarse: Preview) -> tuple[Evidence, ...]:
    if not coarse.mask.any():
        return ()
    sd = float(coarse.field[coarse.mask].std())
    low, high = FIELD_SD_PPM
    score = -SUFFICIENT if sd > high else -DOUBTFUL if sd < low else 0.0
    return (Evidence("field_spread", sd, score, f"the field spreads by {sd:.2f} ppm over the brain"),)
