"""The noise of the complex signal, from the data themselves, and what it makes each voxel's word worth."""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace
from numba import njit, prange
from scipy.special import gammaincinv

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.arrays import to_numpy
from reconstruction.errors import NotReconstructible
from reconstruction.pieces import box_of

MAD = 0.6745
"""Median of |x| for a standard normal x: turns a median into a standard deviation."""

BEST_WEIGHT = 4.0
"""A voxel counts for no more than this over the median: below half the median noise other errors take over."""

EVERY = 4
"""Of the lines along an axis, one in so many along each of the others tells how rough a field is."""

LEAST_PPM = 1e-4
"""No field is known better: phase stored in 12 bits leaves a third of it.  It stands in for the noise of a phantom."""


def weights(noise: FloatArray, mask: BoolArray) -> tuple[FloatArray, float]:
    """(σ̃ / σ)² at the mask's voxels, 0 where nothing is known, float32 (x, y, z); and σ̃ in ppm, the median of σ.

    noise: σ in ppm, float32 (x, y, z), inf where nothing is known.  mask: bool (x, y, z).
    Raises NotReconstructible when nothing is known anywhere.
    """
    xp = array_namespace(noise, mask)
    known = mask & xp.isfinite(noise)
    if not xp.any(known):
        raise NotReconstructible(
            f"no voxel of the mask ({int(xp.sum(mask))} voxels) has a field that can be believed; expected a brain "
            "with coherent phase: check the mask, the magnitude and the phase"
        )
    sigma = xp.where(known, xp.clip(noise, LEAST_PPM, None), 1.0)
    typical = float(np.median(to_numpy(sigma[known])))
    weight: FloatArray = xp.where(known, xp.clip((typical / sigma) ** 2, None, BEST_WEIGHT), 0.0)
    return weight, typical


def roughness(field: FloatArray, noise: FloatArray, mask: BoolArray) -> float:
    """By how much a local field varies more from voxel to voxel than its noise lets expect; 1 where it does not.

    field, noise: ppm, float32 (x, y, z); noise may be inf where nothing is known.  mask: bool (x, y, z).
    A field is nearly straight over three voxels in most of a brain, so what bends there is noise (Rank 1999,
    doi:10.1049/ip-vis:19990238): that of the signal, and what the signal's does not tell, as ringing, physiology or
    filters.  Of the three axes that of the least bend counts, since structures, too, lie along one or the other.
    """
    if not mask.any():
        return 1.0
    box = box_of(mask)
    field, inside = field[box], mask[box]
    variance = np.where(inside, np.maximum(noise[box], LEAST_PPM), np.inf) ** 2
    found = []
    for axis in range(3):
        lines = tuple(slice(None) if other == axis else slice(None, None, EVERY) for other in range(3))
        before, here, after = (
            tuple(part if other == axis else slice(None) for other in range(3))
            for part in (slice(None, -2), slice(1, -1), slice(2, None))
        )
        values, spread = field[lines], variance[lines]
        bend = values[here] - (values[before] + values[after]) / 2
        expected = spread[here] + (spread[before] + spread[after]) / 4
        known = np.isfinite(expected)
        if known.any():
            found.append(float(np.median(np.abs(bend[known]) / np.sqrt(expected[known]))) / MAD)
    return max(1.0, min(found, default=1.0))


def noise_of_real_part(misfit: FloatArray, freedom: int, magnitude: FloatArray, mask: BoolArray) -> float:
    """Standard deviation of the real (and of the imaginary) part of the signal, in the magnitude's unit.

    misfit: float32 (x, y, z), the sum over echoes of the squared distance between signal and fit.  freedom: echoes
    less fitted unknowns.  The median over the mask is set against the median of χ² with so many degrees of freedom,
    so that the few voxels that do not follow the model have no say.  With no freedom left the magnitude's finest
    detail is used instead.
    """
    if not mask.any():
        return 0.0
    if freedom < 1:
        return noise_of_detail(magnitude, mask)
    median_of_chi_square = 2 * float(gammaincinv(freedom / 2, 0.5))
    return float(np.sqrt(np.median(misfit[mask]) / median_of_chi_square))


def excess_noise(sigma: float, magnitude: FloatArray, mask: BoolArray) -> float:
    """By how much a fit of the echoes finds more noise than the magnitude has; about 1 where they follow the model.

    sigma: of the fit, by `noise_of_real_part`, whatever was fitted.  magnitude: float32 (echo, x, y, z), same unit.
    """
    plain = min(noise_of_detail(echo, mask) for echo in magnitude)
    return sigma / plain if plain > 0 else 1.0


def noise_of_detail(magnitude: FloatArray, mask: BoolArray) -> float:
    """Noise from the highest band of a Haar transform (Coupé et al. 2010, doi:10.1016/j.media.2010.03.001).

    In the brain, where SNR is high, the magnitude's noise is that of the real part.  Zero filling makes it too small.
    """
    cell = tuple(min(2, n) for n in magnitude.shape)
    detail = np.empty([n // step for n, step in zip(magnitude.shape, cell, strict=True)], np.float32)
    _detail(magnitude, mask, cell, detail)
    inside = detail[detail >= 0]
    return float(np.median(inside, overwrite_input=True) / MAD) if inside.size else 0.0


@njit(parallel=True, cache=True)
def _detail(volume: FloatArray, mask: BoolArray, cell: tuple[int, int, int], detail: FloatArray) -> None:
    """The size of the highest band in each cell of two voxels along each axis; −1 where the mask does not hold it."""
    scale = np.float32(1 / math.sqrt(cell[0] * cell[1] * cell[2]))
    nz = volume.shape[2]
    for i in prange(detail.shape[0]):
        for j in range(detail.shape[1]):
            line, whole = np.zeros(nz, np.float32), np.ones(nz, np.bool_)
            for x in range(cell[0] * i, cell[0] * (i + 1)):
                for y in range(cell[1] * j, cell[1] * (j + 1)):
                    whole &= mask[x, y]
            if not whole.any():
                detail[i, j] = -1
                continue
            for x in range(cell[0] * i, cell[0] * (i + 1)):
                for y in range(cell[1] * j, cell[1] * (j + 1)):
                    sign = np.float32(1 - 2 * ((x + y) % 2))
                    for z in range(nz):
                        line[z] += sign * volume[x, y, z]
            for k in range(detail.shape[2]):
                first, last = cell[2] * k, cell[2] * (k + 1) - 1
                total = line[first] - line[last] if last > first else line[first]
                detail[i, j, k] = scale * abs(total) if whole[first] and whole[last] else np.float32(-1)
