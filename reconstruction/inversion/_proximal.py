"""The voxel-wise steps of alternating directions for dipole inversion, each in one pass over memory.

Each step takes the value A x, adds its multiplier u, finds z = prox(A x + u), keeps u ← A x + u − z and hands on z − u.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from reconstruction.acquisition import FloatArray


@njit(parallel=True, cache=True)
def fidelity(
    value: FloatArray, u: FloatArray, data: FloatArray, weight: FloatArray, rho: np.float32, bend: np.float32
) -> None:
    """g(z) = Huber(w (z − data)): quadratic up to w |z − data| = bend, linear beyond; `value` becomes z − u.

    All but the numbers are flat float32 arrays of equal size; weight is w².
    """
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
def total_variation(x: FloatArray, u: FloatArray, target: FloatArray, threshold: FloatArray, size: FloatArray) -> None:
    """g(z) = t |z| at each voxel for A = ∇ (periodic forward differences per mm); `target` (3, x, y, z) becomes z − u.

    x, threshold: (x, y, z).  u: (3, x, y, z).  size: voxel size in mm.  With soft thresholding, u is v cut to length t.
    """
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
                length = np.sqrt(a * a + b * b + c * c)
                t = threshold[i, j, k]
                cut = np.float32(1) if length <= t else t / length
                u[0, i, j, k] = cut * a
                u[1, i, j, k] = cut * b
                u[2, i, j, k] = cut * c
                shrunk = 1 - 2 * cut
                target[0, i, j, k] = shrunk * a
                target[1, i, j, k] = shrunk * b
                target[2, i, j, k] = shrunk * c


@njit(parallel=True, cache=True)
def divergence_and_ridge(
    x: FloatArray, u: FloatArray, target: FloatArray, ridge: FloatArray, rho_tv: np.float32, rho: np.float32,
    size: FloatArray, out: FloatArray,
) -> None:  # fmt: skip
    """g(z) = ridge z² / 2 for A = identity; `out` becomes ρ_tv ∇ᵀ target + ρ (z − u)."""
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
