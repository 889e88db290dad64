"""Bipolar read-out: what the gradient's alternating sign adds to the phase is fitted and taken off the even echoes.

Li et al. 2015, doi:10.1007/s10334-014-0470-3: delays of the gradient and eddy currents add a phase that is linear in
space and changes its sign from echo to echo, φₑ = φ₀ + 2π f TEₑ + (−1)ᵉ θ/2.  The second difference over three echoes
holds 2θ and neither φ₀ nor f.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction import quality
from reconstruction.acquisition import FloatArray, Geometry
from reconstruction.region_growing import wrap

EVEN = 1e-2
"""Echo spacings that differ by less than this share of their mean are even, as those of a bipolar train are."""

NEGLIGIBLE = 0.05
"""rad, root mean square over the tissue: less is no bipolar read-out.  It moves a field fitted to four echoes 5 ms
apart by 0.3 Hz, evenly over the head, as a background does.  Flow, and several tissues in a voxel, leave less than half
of that in echoes of one direction."""

PASSES = 4
"""Gauss-Newton steps from the slopes that neighbouring voxels tell; each squares the error."""

ENOUGH = 64
"""Places along an axis that a plane is fitted to; it has four unknowns."""


def bipolar(phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry) -> FloatArray:
    """The phase with its even echoes (the second, the fourth, …) as if read in the direction of the odd ones.

    phase, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.
    Returns float32 (echo, x, y, z), wrapped to [−π, π).  Phase without such an alternation comes back as it is, the
    same object; so does that of fewer than three echoes or of uneven ones, with a warning: θ cannot be told there.
    θ is known up to a multiple of π, which adds 1/(2 ΔTE) to the frequency everywhere and does no harm.
    """
    spacing = np.diff(echo_times)
    if spacing.size < 2 or np.ptp(spacing) > EVEN * spacing.mean():
        quality.warn(
            f"readout: a bipolar read-out cannot be told from {len(echo_times)} echoes"
            f"{' of uneven spacing' if spacing.size > 1 else ''}; the phase was left as it is"
        )
        return phase
    phasor = _second_difference(phase, magnitude)
    offset, slopes = fit_plane(phasor)
    alternation = _plane(_places(geometry.shape), offset / 2, slopes / 2)
    weight = np.abs(phasor)
    total = float(weight.sum()) or 1.0
    strength = math.sqrt(float(np.sum(weight * alternation**2)) / total)
    quality.figure("readout.alternation_rad", strength)
    quality.figure("readout.slope_mrad_per_mm", 1000 * float(np.linalg.norm(slopes / 2 / geometry.voxel_size)))
    if strength < NEGLIGIBLE:
        return phase
    return _off_even_echoes(phase, alternation)


def fit_plane(phasor: NDArray[np.complex64]) -> tuple[float, NDArray[np.float64]]:
    """Offset (rad, at the middle of the grid, within ±π) and slopes (rad per voxel, 3) of arg(phasor).

    Weighted by |phasor|.  Needs no unwrapping: slopes come from neighbours, and the rest is small by then.
    """
    slopes = np.array([_slope(phasor, axis) for axis in range(3)])
    offset = 0.0
    steps = [max(1, n // ENOUGH) for n in phasor.shape]
    thinned, places = phasor[tuple(slice(None, None, step) for step in steps)], _places(phasor.shape, steps)
    for _ in range(PASSES):
        rest = thinned * np.exp(-1j * _plane(places, offset, slopes))
        turn = float(np.angle(rest.sum()))
        rest *= np.complex64(np.exp(-1j * turn))
        weight, error = np.abs(rest).astype(np.float64), rest.imag.astype(np.float64)  # |P| sin(rest) ≈ |P| rest
        columns = [np.ones((1, 1, 1)), *places]
        normal = np.array([[float(np.sum(weight * u * v)) for v in columns] for u in columns])
        change = np.linalg.lstsq(normal, np.array([float(np.sum(u * error)) for u in columns]), rcond=None)[0]
        offset += turn + change[0]
        slopes += change[1:]
    return math.remainder(offset, 2 * math.pi), slopes


def _slope(phasor: NDArray[np.complex64], axis: int) -> float:
    """rad per voxel: the argument of Σ P(x + 1) P*(x)."""
    ahead, behind = [slice(None)] * 3, [slice(None)] * 3
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    return float(np.angle(np.vdot(phasor[tuple(behind)], phasor[tuple(ahead)])))


def _places(shape: tuple[int, ...], steps: Sequence[int] = (1, 1, 1)) -> tuple[FloatArray, ...]:
    """Every n-th place along each axis in voxels from the middle of the grid, float32, to be broadcast."""
    axes = ((np.arange(0, n, step) - (n - 1) / 2).astype(np.float32) for n, step in zip(shape, steps, strict=True))
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def _plane(places: tuple[FloatArray, ...], offset: float, slopes: NDArray[np.float64]) -> FloatArray:
    x, y, z = (float(slope) * along for slope, along in zip(slopes, places, strict=True))
    return np.float32(offset) + x + y + z


@njit(parallel=True, cache=True)
def _second_difference(phase: FloatArray, magnitude: FloatArray) -> NDArray[np.complex64]:
    """Σ |S|⁴ exp(± i (2 φₑ − φₑ₋₁ − φₑ₊₁)) over the echoes that have two neighbours, + for the even ones: 2θ."""
    echoes, nx, ny, nz = phase.shape
    result = np.zeros((nx, ny, nz), np.complex64)
    for x in prange(nx):
        for y in range(ny):
            for z in range(nz):
                total = 0j
                for e in range(1, echoes - 1):
                    angle = 2 * phase[e, x, y, z] - phase[e - 1, x, y, z] - phase[e + 1, x, y, z]
                    weight = magnitude[e, x, y, z] ** 2 * magnitude[e - 1, x, y, z] * magnitude[e + 1, x, y, z]
                    sign = 1 if e % 2 == 1 else -1
                    total += weight * complex(math.cos(angle), sign * math.sin(angle))
                result[x, y, z] = total
    return result


@njit(parallel=True, cache=True)
def _off_even_echoes(phase: FloatArray, alternation: FloatArray) -> FloatArray:
    result = phase.copy()
    for x in prange(phase.shape[1]):
        for echo in range(1, phase.shape[0], 2):
            for y in range(phase.shape[2]):
                for z in range(phase.shape[3]):
                    result[echo, x, y, z] = wrap(phase[echo, x, y, z] - alternation[x, y, z])
    return result
