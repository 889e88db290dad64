"""The voxel-wise steps of alternating directions for dipole inversion.

Each step takes the value A x and what it handed on before, d = z − u; it moves z by α (A x − z) (over-relaxation:
Eckstein & Bertsekas 1992, doi:10.1007/BF01581204), adds its multiplier u to v, finds z = prox(v), keeps u ← v − z and
hands on d = z − u.  On NumPy's arrays each is one pass over memory; on those of another library, the same in its terms.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from numba import njit, prange

from reconstruction import gradient
from reconstruction.acquisition import FloatArray
from reconstruction.fourier import Spectrum

VoxelSize = tuple[float, float, float]


RELAXATION = 1.8
"""α.  Boyd 2011 (doi:10.1561/2200000016, section 3.4.3) recommends 1.5 to 1.8."""


def fidelity(
    value: FloatArray, u: FloatArray, handed: FloatArray, data: FloatArray, weight: FloatArray, rho: float, bend: float
) -> None:
    """g(z) = Huber(w (z − data)): quadratic up to w |z − data| = bend, linear beyond; `handed` becomes the new z − u.

    All but the numbers are float32 (x, y, z); weight is w².
    """
    if is_numpy_array(value):
        flat = [array.reshape(-1) for array in (value, u, handed, data, weight)]
        _fidelity(flat[0], flat[1], flat[2], flat[3], flat[4], np.float32(rho), np.float32(bend))
        return
    xp = array_namespace(value)
    v = _relaxed(value, handed + u) + u
    w = xp.sqrt(weight)
    quadratic = (weight * data + rho * v) / (weight + rho)
    misfit = w * (quadratic - data)
    linear = v - w * (bend / rho) * xp.sign(misfit)
    z = xp.where(xp.abs(misfit) > bend, linear, quadratic)
    u[...] = v - z
    handed[...] = 2 * z - v


def total_variation(
    x: FloatArray, u: FloatArray, handed: FloatArray, threshold: FloatArray, voxel_size: VoxelSize
) -> None:
    """g(z) = t |z| at each voxel for A = ∇ (periodic forward differences per mm); `handed` becomes the new z − u.

    x, threshold t: (x, y, z); t below 0 marks a voxel outside the brain: differences from or to it are free and no
    part of |z|.  u, handed: (3, x, y, z).  With soft thresholding, u is v cut to length t.
    """
    if is_numpy_array(x):
        _total_variation(x, u, handed, threshold, np.array(voxel_size, np.float32))
        return
    xp = array_namespace(x)
    v = _relaxed(gradient.forward(x, voxel_size), handed + u) + u
    inside = threshold >= 0
    bound = xp.stack([inside & xp.roll(inside, -1, axis=axis) for axis in range(3)])
    length = xp.sqrt(xp.sum(xp.where(bound, v * v, 0.0), axis=0))
    cut = xp.where(length <= threshold, 1.0, threshold / xp.where(length > 0, length, 1.0))
    cut = xp.where(bound, cut, 0.0)
    u[...] = cut * v
    handed[...] = (1 - 2 * cut) * v


def ridge(x: FloatArray, u: FloatArray, handed: FloatArray, strength: FloatArray, rho: float) -> None:
    """g(z) = strength z² / 2 for A = identity; `handed` becomes the new z − u.  All but rho are float32 (x, y, z)."""
    if is_numpy_array(x):
        _ridge(x.reshape(-1), u.reshape(-1), handed.reshape(-1), strength.reshape(-1), np.float32(rho))
        return
    v = _relaxed(x, handed + u) + u
    z = rho * v / (rho + strength)
    u[...] = v - z
    handed[...] = 2 * z - v


def together(
    gradients: FloatArray, values: FloatArray, rho_tv: float, rho: float, voxel_size: VoxelSize, out: FloatArray
) -> None:
    """`out` becomes ρ_tv ∇ᵀ gradients + ρ values."""
    if is_numpy_array(values):
        _together(gradients, values, np.float32(rho_tv), np.float32(rho), np.array(voxel_size, np.float32), out)
        return
    out[...] = rho_tv * gradient.adjoint(gradients, voxel_size) + rho * values


def nearest(
    of_chi: Spectrum, of_field: Spectrum, dipole_kernel: FloatArray, normal: FloatArray, rho_field: float
) -> None:
    """From the spectra of the targets to those of χ and D χ, in place: χ = (t_χ + ρ D t_field) / normal."""
    if is_numpy_array(of_chi):
        _nearest(
            of_chi.reshape(-1),
            of_field.reshape(-1),
            dipole_kernel.reshape(-1),
            normal.reshape(-1),
            np.float32(rho_field),
        )
        return
    of_chi[...] = (of_chi + rho_field * dipole_kernel * of_field) / normal
    of_field[...] = dipole_kernel * of_chi


def _relaxed(value: FloatArray, z: FloatArray) -> FloatArray:
    return z + RELAXATION * (value - z)


ALPHA = np.float32(RELAXATION)


@njit(parallel=True, cache=True)
def _fidelity(
    value: FloatArray, u: FloatArray, handed: FloatArray, data: FloatArray, weight: FloatArray, rho: np.float32,
    bend: np.float32,
) -> None:  # fmt: skip
    for i in prange(value.size):
        z = handed[i] + u[i]
        v = z + ALPHA * (value[i] - z) + u[i]
        w = np.sqrt(weight[i])
        z = (weight[i] * data[i] + rho * v) / (weight[i] + rho)
        misfit = w * (z - data[i])
        if misfit > bend:
            z = v - w * bend / rho
        elif misfit < -bend:
            z = v + w * bend / rho
        u[i] = v - z
        handed[i] = 2 * z - v


@njit(parallel=True, cache=True)
def _total_variation(x: FloatArray, u: FloatArray, handed: FloatArray, threshold: FloatArray, size: FloatArray) -> None:
    nx, ny, nz = x.shape
    for i in prange(nx):
        after_i = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            after_j = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                after_k = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                a = handed[0, i, j, k] + u[0, i, j, k]
                b = handed[1, i, j, k] + u[1, i, j, k]
                c = handed[2, i, j, k] + u[2, i, j, k]
                a += ALPHA * ((x[after_i, j, k] - here) / size[0] - a) + u[0, i, j, k]
                b += ALPHA * ((x[i, after_j, k] - here) / size[1] - b) + u[1, i, j, k]
                c += ALPHA * ((x[i, j, after_k] - here) / size[2] - c) + u[2, i, j, k]
                t = threshold[i, j, k]
                bound_a = t >= 0 and threshold[after_i, j, k] >= 0
                bound_b = t >= 0 and threshold[i, after_j, k] >= 0
                bound_c = t >= 0 and threshold[i, j, after_k] >= 0
                squares = np.float32(0)
                squares += a * a if bound_a else np.float32(0)
                squares += b * b if bound_b else np.float32(0)
                squares += c * c if bound_c else np.float32(0)
                length = np.sqrt(squares)
                cut = np.float32(1) if length <= t else t / length
                cut_a = cut if bound_a else np.float32(0)
                cut_b = cut if bound_b else np.float32(0)
                cut_c = cut if bound_c else np.float32(0)
                u[0, i, j, k] = cut_a * a
                u[1, i, j, k] = cut_b * b
                u[2, i, j, k] = cut_c * c
                handed[0, i, j, k] = (1 - 2 * cut_a) * a
                handed[1, i, j, k] = (1 - 2 * cut_b) * b
                handed[2, i, j, k] = (1 - 2 * cut_c) * c


@njit(parallel=True, cache=True)
def _ridge(x: FloatArray, u: FloatArray, handed: FloatArray, strength: FloatArray, rho: np.float32) -> None:
    for i in prange(x.size):
        z = handed[i] + u[i]
        v = z + ALPHA * (x[i] - z) + u[i]
        z = rho * v / (rho + strength[i])
        u[i] = v - z
        handed[i] = 2 * z - v


@njit(parallel=True, cache=True)
def _together(
    gradients: FloatArray, values: FloatArray, rho_tv: np.float32, rho: np.float32, size: FloatArray, out: FloatArray
) -> None:
    nx, ny, nz = values.shape
    for i in prange(nx):
        before_i = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            before_j = j - 1 if j > 0 else ny - 1
            for k in range(nz):
                before_k = k - 1 if k > 0 else nz - 1
                divergence = (
                    (gradients[0, before_i, j, k] - gradients[0, i, j, k]) / size[0]
                    + (gradients[1, i, before_j, k] - gradients[1, i, j, k]) / size[1]
                    + (gradients[2, i, j, before_k] - gradients[2, i, j, k]) / size[2]
                )
                out[i, j, k] = rho_tv * divergence + rho * values[i, j, k]


@njit(parallel=True, cache=True)
def _nearest(of_chi: Spectrum, of_field: Spectrum, D: FloatArray, normal: FloatArray, rho: np.float32) -> None:
    for i in prange(of_chi.size):
        of_chi[i] = (of_chi[i] + rho * D[i] * of_field[i]) / normal[i]
        of_field[i] = D[i] * of_chi[i]
