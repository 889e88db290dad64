"""Gaussian mixtures evaluated at places."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from reconstruction.atlas import Mixture

REACH = 4.5
"""Standard deviations beyond which a component adds nothing: e^−10 of its peak, where thresholds are e^−4 of it."""

NOTHING = 1e-30


def density_ratio(mixture: Mixture, places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Density over threshold at places (3, …) in mm: 1 on the structure's surface, more inside, never below 1e-30."""
    widths = np.sqrt(np.einsum("kii->ki", mixture.covariances))
    low = (mixture.means - REACH * widths).min(0)
    high = (mixture.means + REACH * widths).max(0)
    found = np.full(places[0].size, NOTHING)
    peaks = mixture.weights / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(mixture.covariances)) / mixture.threshold
    flat = np.ascontiguousarray(places.reshape(3, -1))
    inverses = np.asarray(np.linalg.inv(mixture.covariances), np.float64)
    _add_ratio(flat, np.stack([low, high]), peaks, mixture.means, inverses, found)
    return found.reshape(places.shape[1:])


@njit(parallel=True, cache=True)
def _add_ratio(
    places: NDArray[np.floating],
    bounds: NDArray[np.float64],
    peaks: NDArray[np.float64],
    means: NDArray[np.float64],
    inverses: NDArray[np.float64],
    found: NDArray[np.float64],
) -> None:
    for v in prange(found.size):
        x, y, z = places[0, v], places[1, v], places[2, v]
        outside = x <= bounds[0, 0] or y <= bounds[0, 1] or z <= bounds[0, 2]
        if outside or x >= bounds[1, 0] or y >= bounds[1, 1] or z >= bounds[1, 2]:
            continue
        total = 0.0
        for k in range(peaks.size):
            a, b, c = x - means[k, 0], y - means[k, 1], z - means[k, 2]
            s = inverses[k]
            square = a * a * s[0, 0] + b * b * s[1, 1] + c * c * s[2, 2]
            square += 2 * (a * b * s[0, 1] + a * c * s[0, 2] + b * c * s[1, 2])
            total += peaks[k] * math.exp(-0.5 * square)
        found[v] = max(total, NOTHING)
