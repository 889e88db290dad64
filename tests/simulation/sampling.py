"""Look-ups in volumes: the inner loops of the simulated head."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction.acquisition import FloatArray
from tests.simulation.tissue import AIR_PPM


@njit(cache=True)
def trilinear(volume, x, y, z, outside):
    """`volume` at the voxel coordinate (x, y, z); `outside` beyond its edges."""
    nx, ny, nz = volume.shape
    if not (0 <= x < nx - 1 and 0 <= y < ny - 1 and 0 <= z < nz - 1):
        return outside
    i, j, k = int(x), int(y), int(z)
    u, v, w = np.float32(x - i), np.float32(y - j), np.float32(z - k)
    a = volume[i, j, k] + u * (volume[i + 1, j, k] - volume[i, j, k])
    b = volume[i, j + 1, k] + u * (volume[i + 1, j + 1, k] - volume[i, j + 1, k])
    c = volume[i, j, k + 1] + u * (volume[i + 1, j, k + 1] - volume[i, j, k + 1])
    d = volume[i, j + 1, k + 1] + u * (volume[i + 1, j + 1, k + 1] - volume[i, j + 1, k + 1])
    e = a + v * (b - a)
    return e + w * (c + v * (d - c) - e)


@njit(cache=True)
def _cubic_weights(u):
    """Of the four samples around u, which is from 0 to 1 from the second to the third."""
    v = 1 - u
    return v**3 / 6, 2 / 3 - u**2 * (2 - u) / 2, 2 / 3 - v**2 * (2 - v) / 2, u**3 / 6


@njit(cache=True)
def cubic(spline, x, y, z):
    """The cubic spline with these coefficients at the voxel coordinate (x, y, z); 0 at its edges and beyond.

    A field that is looked up along straight lines loses some of what thin structures make of it, and then no map can
    give their susceptibility back (Unser 1999, doi:10.1109/79.799930).
    """
    nx, ny, nz = spline.shape
    if not (1 <= x < nx - 2 and 1 <= y < ny - 2 and 1 <= z < nz - 2):
        return 0.0
    i, j, k = int(x), int(y), int(z)
    of_y, of_z = _cubic_weights(y - j), _cubic_weights(z - k)
    total = 0.0
    for a, of_x in enumerate(_cubic_weights(x - i)):
        for b in range(4):
            row = spline[i + a - 1, j + b - 1]
            along = of_z[0] * row[k - 1] + of_z[1] * row[k] + of_z[2] * row[k + 1] + of_z[3] * row[k + 2]
            total += of_x * of_y[b] * along
    return total


@njit(cache=True)
def warp(control, spacing, x, y, z):
    """The canonical place (mm from the canonical corner) of a place in the subject (same corner).

    control: (3, i, j, k) displacements in mm on a grid of `spacing` mm.
    """
    i, j, k = x / spacing, y / spacing, z / spacing
    return (
        x + trilinear(control[0], i, j, k, np.float32(0)),
        y + trilinear(control[1], i, j, k, np.float32(0)),
        z + trilinear(control[2], i, j, k, np.float32(0)),
    )


@njit(parallel=True, cache=True)
def enlarge(volume: FloatArray, factor: float, shape: tuple[int, int, int]) -> FloatArray:
    """`volume` on a grid `factor` times finer, voxel (0, 0, 0) in place; edges repeat."""
    out = np.empty(shape, np.float32)
    nx, ny, nz = volume.shape
    for i in prange(shape[0]):
        x = min(i / factor, nx - 1.001)
        for j in range(shape[1]):
            y = min(j / factor, ny - 1.001)
            for k in range(shape[2]):
                out[i, j, k] = trilinear(volume, x, y, min(k / factor, nz - 1.001), np.float32(0))
    return out


@njit(parallel=True, cache=True)
def warped(
    volume: FloatArray,
    control: FloatArray,
    spacing: float,
    step: float,
    shape: tuple[int, int, int],
    outside: float,
) -> FloatArray:
    """A canonical volume (1 mm) in the subject, on a grid of `step` mm from the same corner."""
    out = np.empty(shape, np.float32)
    for i in prange(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                x, y, z = warp(control, spacing, i * step, j * step, k * step)
                out[i, j, k] = trilinear(volume, x, y, z, np.float32(outside))
    return out


@njit(parallel=True, cache=True)
def nearest(
    volume: NDArray[np.uint8],
    control: FloatArray,
    spacing: float,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
) -> NDArray[np.uint8]:
    """The canonical label at each voxel centre; affine: voxel → mm from the canonical corner; 0 outside."""
    out = np.zeros(shape, np.uint8)
    nx, ny, nz = volume.shape
    for i in prange(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                x = affine[0, 0] * i + affine[0, 1] * j + affine[0, 2] * k + affine[0, 3]
                y = affine[1, 0] * i + affine[1, 1] * j + affine[1, 2] * k + affine[1, 3]
                z = affine[2, 0] * i + affine[2, 1] * j + affine[2, 2] * k + affine[2, 3]
                x, y, z = warp(control, spacing, x, y, z)
                a, b, c = round(x), round(y), round(z)
                if 0 <= a < nx and 0 <= b < ny and 0 <= c < nz:
                    out[i, j, k] = volume[a, b, c]
    return out


@njit(parallel=True, cache=True)
def acquire(
    chi: FloatArray,
    amplitude: FloatArray,
    r2star: FloatArray,
    control: FloatArray,
    spacing: float,
    field: FloatArray,
    field_step: float,
    shim: NDArray[np.float64],
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    sub: tuple[int, int, int],
    echo_times: NDArray[np.float64],
    larmor_frequency: float,
) -> tuple[NDArray[np.complex64], FloatArray, FloatArray, FloatArray]:
    """The noiseless signal of every echo, and the truth, as means over sub[0]·sub[1]·sub[2] points of each voxel.

    S = A exp(−TE R2*) exp(i 2π f₀ Δ TE): amplitude, R2* (1/s) and χ (ppm) are canonical volumes (1 mm); the field Δ
    (ppm) is a cubic spline on the subject's grid of field_step mm, given by its coefficients, less the shim polynomial
    `second_order` round that grid's middle.
    Returns signal (echo, x, y, z), χ (ppm), field after shim (ppm), R2* (1/s).
    """
    echoes = echo_times.size
    signal = np.zeros((echoes, shape[0], shape[1], shape[2]), np.complex64)
    chi_mean = np.zeros(shape, np.float32)
    field_mean = np.zeros(shape, np.float32)
    r2star_mean = np.zeros(shape, np.float32)
    points = sub[0] * sub[1] * sub[2]
    nx, ny, nz = field.shape
    middle_x, middle_y, middle_z = nx * field_step / 2, ny * field_step / 2, nz * field_step / 2
    for i in prange(shape[0]):
        total = np.empty(echoes, np.complex128)
        for j in range(shape[1]):
            for k in range(shape[2]):
                for echo in range(echoes):
                    total[echo] = 0
                chi_sum = field_sum = r2star_sum = 0.0
                for point in range(points):
                    a = i + (point % sub[0] + 0.5) / sub[0] - 0.5
                    b = j + (point // sub[0] % sub[1] + 0.5) / sub[1] - 0.5
                    c = k + (point // (sub[0] * sub[1]) + 0.5) / sub[2] - 0.5
                    x = affine[0, 0] * a + affine[0, 1] * b + affine[0, 2] * c + affine[0, 3]
                    y = affine[1, 0] * a + affine[1, 1] * b + affine[1, 2] * c + affine[1, 3]
                    z = affine[2, 0] * a + affine[2, 1] * b + affine[2, 2] * c + affine[2, 3]
                    u, v, w = (x - middle_x) / 100, (y - middle_y) / 100, (z - middle_z) / 100
                    shimmed = cubic(field, x / field_step, y / field_step, z / field_step) - (
                        shim[0]
                        + shim[1] * u
                        + shim[2] * v
                        + shim[3] * w
                        + shim[4] * u * u
                        + shim[5] * v * v
                        + shim[6] * w * w
                        + shim[7] * u * v
                        + shim[8] * u * w
                        + shim[9] * v * w
                    )
                    x, y, z = warp(control, spacing, x, y, z)
                    chi_sum += trilinear(chi, x, y, z, np.float32(AIR_PPM))
                    field_sum += shimmed
                    height = trilinear(amplitude, x, y, z, np.float32(0))
                    if height > 0:
                        decay = trilinear(r2star, x, y, z, np.float32(0))
                        r2star_sum += decay
                        omega = 2 * math.pi * 1e-6 * larmor_frequency * shimmed
                        for echo in range(echoes):
                            time = echo_times[echo]
                            modulus = height * math.exp(-time * decay)
                            total[echo] += complex(modulus * math.cos(omega * time), modulus * math.sin(omega * time))
                for echo in range(echoes):
                    signal[echo, i, j, k] = total[echo] / points
                chi_mean[i, j, k] = chi_sum / points
                field_mean[i, j, k] = field_sum / points
                r2star_mean[i, j, k] = r2star_sum / points
    return signal, chi_mean, field_mean, r2star_mean
