"""The field of a susceptibility distribution, and the shim that a scanner sets against it."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from reconstruction.acquisition import FloatArray


def dipole_field(
    chi: FloatArray,
    voxel_size: tuple[float, float, float],
    b0_direction: tuple[float, float, float] = (0.0, 0.0, 1.0),
    padding: float = 1.5,
) -> FloatArray:
    """ΔB/B₀ in ppm of χ in ppm, relative to a surrounding of χ = 0 (Salomir 2003, doi:10.1002/cmr.b.10083).

    The grid is surrounded by zeros to `padding` times its size, so that the periodic images of the head are far away
    (at 1.5 and a head of 260 mm: 390 mm, less than 0.1 ppm and as flat as a shim term).
    """
    shape = tuple(scipy.fft.next_fast_len(int(padding * n), real=True) for n in chi.shape)
    spectrum = scipy.fft.rfftn(chi, shape, workers=2)
    kx, ky, kz = (
        frequencies(n, d).astype(np.float32)
        for frequencies, n, d in zip((np.fft.fftfreq, np.fft.fftfreq, np.fft.rfftfreq), shape, voxel_size, strict=True)
    )
    bx, by, bz = (np.float32(b) for b in b0_direction)
    # The Nyquist frequency stands for +k and −k alike: products of different components cancel there.
    ux, uy, uz = (
        np.where(np.abs(k) < np.abs(k).max(), k, 0) if n % 2 == 0 else k
        for k, n in zip((kx, ky, kz), shape, strict=True)
    )
    for i, k in enumerate(kx):  # slab by slab: the kernel is never held whole
        k_squared = k**2 + ky[:, None] ** 2 + kz**2
        crossed = ux[i] * bx * (uy[:, None] * by + uz * bz) + uy[:, None] * by * uz * bz
        k_along_squared = (k * bx) ** 2 + (ky[:, None] * by) ** 2 + (kz * bz) ** 2 + 2 * crossed
        with np.errstate(invalid="ignore"):
            kernel = np.float32(1 / 3) - k_along_squared / k_squared
        if i == 0:
            kernel[0, 0] = 0
        spectrum[i] *= kernel
    field = scipy.fft.irfftn(spectrum, shape, workers=2, overwrite_x=True)
    return field[tuple(slice(n) for n in chi.shape)]


HARMONIC = np.delete(np.eye(10), 6, axis=1)
HARMONIC[6, 4:6] = -1
"""Takes the nine free coefficients of a shim to the ten of `second_order`: u² − w² and v² − w² instead of squares."""


def second_order(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ten polynomials of a second-order shim at places (point, 3) in dm from the middle of the field's grid."""
    u, v, w = places.T
    return np.stack([np.ones_like(u), u, v, w, u * u, v * v, w * w, u * v, u * w, v * w], axis=1)


def shim(field: FloatArray, brain: NDArray[np.bool_], step: float) -> NDArray[np.float64]:
    """The coefficients of `second_order` (ppm) that flatten the field over the brain best.

    A shim coil's field obeys Laplace's equation: the squares' coefficients add up to 0.
    """
    places = np.argwhere(brain)
    middle = np.array(field.shape) / 2
    A = second_order((places - middle) * step / 100)
    coefficients: NDArray[np.float64] = np.linalg.lstsq(A @ HARMONIC, field[brain].astype(float), rcond=None)[0]
    return HARMONIC @ coefficients
