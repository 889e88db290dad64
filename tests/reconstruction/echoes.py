"""Small multi-echo objects of which everything is known: field, offset, relaxation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reconstruction import Geometry
from reconstruction.acquisition import BoolArray, FloatArray

UNEVEN = (4e-3, 9e-3, 16e-3, 21e-3)
EVEN = (4e-3, 10e-3, 16e-3, 22e-3)


def geometry(shape: tuple[int, int, int], voxel_size: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> Geometry:
    return Geometry(shape, voxel_size, (0.0, 0.0, 1.0))


def grid(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y, z from −1 to 1."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return x, y, z


def ball(shape: tuple[int, int, int], radius: float = 0.85) -> BoolArray:
    x, y, z = grid(shape)
    return x**2 + y**2 + z**2 < radius**2


def steep_field(shape: tuple[int, int, int]) -> np.ndarray:
    """Hz: a shim residual and a peak of 150 Hz like that above a sinus."""
    x, y, z = grid(shape)
    return 40 * x * y + 30 * z + 150 * np.exp(-((x - 0.1) ** 2 + (y - 0.4) ** 2 + (z + 0.4) ** 2) / 0.08)


def smooth_offset(shape: tuple[int, int, int]) -> np.ndarray:
    """rad: what a receive coil leaves."""
    x, y, z = grid(shape)
    return 0.4 + 1.5 * x - 2 * y + 0.6 * z * z + 0.4 * x * y


def acquire(
    amplitude: np.ndarray,
    field: np.ndarray,
    echo_times: Sequence[float],
    offset: np.ndarray | float = 0.0,
    r2star: np.ndarray | float = 20.0,
    snr: float = np.inf,
    seed: int = 0,
) -> tuple[FloatArray, FloatArray]:
    """Phase and magnitude, float32 (echo, x, y, z).  snr: of an amplitude of 1 at TE = 0."""
    random = np.random.default_rng(seed)
    signal = np.stack([amplitude * np.exp(1j * (offset + 2 * np.pi * field * t) - t * r2star) for t in echo_times])
    if np.isfinite(snr):
        signal = signal + (random.standard_normal(signal.shape) + 1j * random.standard_normal(signal.shape)) / snr
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)
