"""Bipolar read-out: what the gradient's alternating sign adds to the phase is fitted and taken off the even echoes.

Li et al. 2015, doi:10.1007/s10334-014-0470-3: delays of the gradient and eddy currents add a phase that is linear in
space and changes its sign from echo to echo, φₑ = φ₀ + 2π f TEₑ + (−1)ᵉ θ/2.  The second difference over three echoes
holds 2θ and neither φ₀ nor f.
"""

from __future__ import annotations

import math

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

COHERENT = 0.5
"""Part of Σ|P| that is left of |ΣP| when the plane was taken off the argument of P, the phasor of the second
difference: where it is less there is no plane, and what changes from echo to echo is something else."""

PASSES = 4
"""Gauss-Newton steps from the slopes that neighbouring voxels tell; each squares the error."""

PAIRS = 32
"""Of neighbouring voxels along an axis: a plane has four unknowns, and all voxels take as long as a stage does."""

Places = tuple[NDArray[np.intp], ...]
"""Voxels along x, y and z."""


def bipolar(phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry) -> FloatArray:
    """The phase with its even echoes (the second, the fourth, …) as if read in the direction of the odd ones.

    phase, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.
    Returns float32 (echo, x, y, z), wrapped to [−π, π).  Phase without such an alternation comes back as it is, the
    same object, and nothing is noted; so does that of fewer than three echoes or of uneven ones, where θ cannot be
    told.  θ is known up to a multiple of π, which adds 1/(2 ΔTE) to the frequency everywhere and does no harm.
    """
    spacing = np.diff(echo_times)
    if spacing.size < 2 or np.ptp(spacing) > EVEN * spacing.mean():
        return phase
    pairs = tuple(map(pairs_along, geometry.shape))
    phasor = _second_difference(phase, magnitude, *pairs)
    offset, slopes, coherence = fit_plane(phasor, pairs, geometry.shape)
    offset, slopes = offset / 2, slopes / 2
    weight = np.abs(phasor)
    alternation = _plane(_from_middle(pairs, geometry.shape), offset, slopes)
    strength = math.sqrt(float(np.sum(weight * alternation**2)) / (float(weight.sum()) or 1.0))
    if strength < NEGLIGIBLE or coherence < COHERENT:
        return phase
    quality.figure("readout.alternation_rad", strength)
    quality.figure("readout.slope_mrad_per_mm", 1000 * float(np.linalg.norm(slopes / geometry.voxel_size)))
    everywhere = tuple(np.arange(n) for n in geometry.shape)
    return _off_even_echoes(phase, _plane(_from_middle(everywhere, geometry.shape), offset, slopes))


def pairs_along(n: int) -> NDArray[np.intp]:
    """Voxels of an axis of n: pairs of neighbours, evenly spread."""
    first = np.arange(0, max(n - 1, 1), max(2, n // PAIRS))
    return np.minimum([first, first + 1], n - 1).T.ravel()


def fit_plane(
    phasor: NDArray[np.complex64], pairs: Places, shape: tuple[int, ...]
) -> tuple[float, NDArray[np.float64], float]:
    """Offset (rad, at the middle of the grid, within ±π) and slopes (rad per voxel, 3) of arg(phasor), and what part of
    the phasors' sum they keep together.

    phasor: (x, y, z) at the pairs of a grid of this shape.  Weighted by |phasor|.  Needs no unwrapping: slopes come
    from neighbours, and the rest is small by then.
    """
    slopes = np.array([_slope(phasor, axis) for axis in range(3)])
    offset = 0.0
    places = _from_middle(pairs, shape)
    weight = np.abs(phasor).astype(np.float64)
    columns = [np.ones((1, 1, 1), np.float32), *places]
    normal = np.array([[float(np.sum(weight * (u * v))) for v in columns] for u in columns])
    for _ in range(PASSES):
        rest = phasor * np.exp(-1j * _plane(places, offset, slopes))
        turn = float(np.angle(rest.sum()))
        error = (rest * np.complex64(np.exp(-1j * turn))).imag  # |P| sin(rest) ≈ |P| rest
        change = np.linalg.lstsq(normal, np.array([float(np.sum(u * error)) for u in columns]), rcond=None)[0]
        offset += turn + change[0]
        slopes += change[1:]
    rest = phasor * np.exp(-1j * _plane(places, offset, slopes))
    coherence = abs(complex(rest.sum())) / (float(weight.sum()) or 1.0)
    return math.remainder(offset, 2 * math.pi), slopes, coherence


def _slope(phasor: NDArray[np.complex64], axis: int) -> float:
    """rad per voxel: the argument of Σ P(x + 1) P*(x) over the pairs."""
    ahead, behind = [slice(None)] * 3, [slice(None)] * 3
    ahead[axis], behind[axis] = slice(1, None, 2), slice(None, None, 2)
    return float(np.angle(np.vdot(phasor[tuple(behind)], phasor[tuple(ahead)])))


def _from_middle(voxels: Places, shape: tuple[int, ...]) -> tuple[FloatArray, ...]:
    """Places along each axis in voxels from the middle of the grid, float32, to be broadcast."""
    axes = ((along - (n - 1) / 2).astype(np.float32) for along, n in zip(voxels, shape, strict=True))
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def _plane(places: tuple[FloatArray, ...], offset: float, slopes: NDArray[np.float64]) -> FloatArray:
    x, y, z = (np.float32(slope) * along for slope, along in zip(slopes, places, strict=True))
    return np.float32(offset) + x + y + z


@njit(parallel=True, cache=True)
def _second_difference(
    phase: FloatArray, magnitude: FloatArray, xs: NDArray[np.intp], ys: NDArray[np.intp], zs: NDArray[np.intp]
) -> NDArray[np.complex64]:
    """Σ |S|⁴ exp(± i (2 φₑ − φₑ₋₁ − φₑ₊₁)) over the echoes that have two neighbours, + for the even ones: 2θ."""
    result = np.zeros((xs.size, ys.size, zs.size), np.complex64)
    for i in prange(xs.size):
        for j in range(ys.size):
            for e in range(1, phase.shape[0] - 1):
                sign = 1 if e % 2 == 1 else -1
                for k in range(zs.size):
                    x, y, z = xs[i], ys[j], zs[k]
                    angle = 2 * phase[e, x, y, z] - phase[e - 1, x, y, z] - phase[e + 1, x, y, z]
                    weight = magnitude[e, x, y, z] ** 2 * magnitude[e - 1, x, y, z] * magnitude[e + 1, x, y, z]
                    result[i, j, k] += weight * complex(math.cos(angle), sign * math.sin(angle))
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
