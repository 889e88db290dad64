"""The voxel-wise steps of alternating directions for dipole inversion.

Each step takes the value A x, adds its multiplier u, finds z = prox(A x + u), keeps u ← A x + u − z and hands on z − u.
On NumPy's arrays each is one pass over memory; on those of another library, the same in that library's terms.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from numba import njit, prange

from reconstruction import gradient
from reconstruction.acquisition import FloatArray

VoxelSize = tuple[float, float, float]


def fidelity(value: FloatArray, u: FloatArray, data: FloatArray, weight: FloatArray, rho: float, bend: float) -> None:
    """g(z) = Huber(w (z − data)): quadratic up to w |z − data| = bend, linear beyond; `value` becomes z − u.

    All but the numbers are float32 (x, y, z); weight is w².
    """
    if is_numpy_array(value):
        _fidelity(
            value.reshape(-1), u.reshape(-1), data.reshape(-1), weight.reshape(-1), np.float32(rho), np.float32(bend)
        )
        return
    xp = array_namespace(value)
    v = value + u
    w = xp.sqrt(weight)
    quadratic = (weight * data + rho * v) / (weight + rho)
    misfit = w * (quadratic - data)
    linear = v - w * (bend / rho) * xp.sign(misfit)
    z = xp.where(xp.abs(misfit) > bend, linear, quadratic)
    u[...] = v - z
    value[...] = 2 * z - v


def total_variation(
    x: FloatArray, u: FloatArray, target: FloatArray, threshold: FloatArray, voxel_size: VoxelSize
) -> None:
    """g(z) = t |z| at each voxel for A = ∇ (periodic forward differences per mm); `target` (3, x, y, z) becomes z − u.

    x, threshold t: (x, y, z); t below 0 marks a voxel outside the brain: differences from or to it are free and no
    part of |z|.  u: (3, x, y, z).  With soft thresholding, u is v cut to length t.
    """
    if is_numpy_array(x):
        _total_variation(x, u, target, threshold, np.array(voxel_size, np.float32))
        return
    xp = array_namespace(x)
    v = gradient.forward(x, voxel_size) + u
    inside = threshold >= 0
    bound = xp.stack([inside & xp.roll(inside, -1, axis=axis) for axis in range(3)])
    length = xp.sqrt(xp.sum(xp.where(bound, v * v, 0.0), axis=0))
    cut = xp.where(length <= threshold, 1.0, threshold / xp.where(length > 0, length, 1.0))
    cut = xp.where(bound, cut, 0.0)
    u[...] = cut * v
    target[...] = (1 - 2 * cut) * v


def divergence_and_ridge(
    x: FloatArray, u: FloatArray, target: FloatArray, ridge: FloatArray, rho_tv: float, rho: float,
    voxel_size: VoxelSize, out: FloatArray,
) -> None:  # fmt: skip
    """g(z) = ridge z² / 2 for A = identity; `out` becomes ρ_tv ∇ᵀ target + ρ (z − u)."""
    if is_numpy_array(x):
        size = np.array(voxel_size, np.float32)
        _divergence_and_ridge(x, u, target, ridge, np.float32(rho_tv), np.float32(rho), size, out)
        return
    v = x + u
    z = rho * v / (rho + ridge)
    u[...] = v - z
    out[...] = rho_tv * gradient.adjoint(target, voxel_size) + rho * (2 * z - v)


@njit(parallel=True, cache=True)
def _fidelity(
    value: FloatArray, u: FloatArray, data: FloatArray, weight: FloatArray, rho: np.float32, bend: np.float32
) -> None:
    for i in prange(value.size):
        v = value[i] + u[i]
        w = np.sqrt(weight[i])
        z = (weight[i] * data[i] + rho * v) / (weight[i] + rho)
        misfit = w * (z - data[i])
        if misfit > bend:
            z = v - w * bend / rho
        elif misfit < -bend:
            z = v + w * bend / rho
        u[i] = v - z
        value[i] = 2 * z - v


@njit(parallel=True, cache=True)
def _total_variation(x: FloatArray, u: FloatArray, target: FloatArray, threshold: FloatArray, size: FloatArray) -> None:
    nx, ny, nz = x.shape
    for i in prange(nx):
        after_i = i + 1 if i + 1 < nx else 0
        for j in range(ny):
            after_j = j + 1 if j + 1 < ny else 0
            for k in range(nz):
                after_k = k + 1 if k + 1 < nz else 0
                here = x[i, j, k]
                a = (x[after_i, j, k] - here) / size[0] + u[0, i, j, k]
                b = (x[i, after_j, k] - here) / size[1] + u[1, i, j, k]
                c = (x[i, j, after_k] - here) / size[2] + u[2, i, j, k]
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
                target[0, i, j, k] = (1 - 2 * cut_a) * a
                target[1, i, j, k] = (1 - 2 * cut_b) * b
                target[2, i, j, k] = (1 - 2 * cut_c) * c


@njit(parallel=True, cache=True)
def _divergence_and_ridge(
    x: FloatArray, u: FloatArray, target: FloatArray, ridge: FloatArray, rho_tv: np.float32, rho: np.float32,
    size: FloatArray, out: FloatArray,
) -> None:  # fmt: skip
    nx, ny, nz = x.shape
    for i in prange(nx):
        before_i = i - 1 if i > 0 else nx - 1
        for j in range(ny):
            before_j = j - 1 if j > 0 else ny - 1
            for k in range(nz):
                before_k = k - 1 if k > 0 else nz - 1
                divergence = (
                    (target[0, before_i, j, k] - target[0, i, j, k]) / size[0]
                    + (target[1, i, before_j, k] - target[1, i, j, k]) / size[1]
                    + (target[2, i, j, before_k] - target[2, i, j, k]) / size[2]
                )
                v = x[i, j, k] + u[i, j, k]
                z = rho * v / (rho + ridge[i, j, k])
                u[i, j, k] = v - z
                out[i, j, k] = rho_tv * divergence + rho * (2 * z - v)
