"""Gaussian mixtures evaluated at places."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruction.atlas import Mixture

REACH = 4.5
"""Standard deviations beyond which a component adds nothing: e^−10 of its peak, where thresholds are e^−4 of it."""

NOTHING = 1e-30


def density_ratio(mixture: Mixture, places: NDArray[np.floating]) -> NDArray[np.float64]:
    """Density over threshold at places (3, …) in mm: 1 on the structure's surface, more inside, never below 1e-30."""
    widths = np.sqrt(np.einsum("kii->ki", mixture.covariances))
    low = (mixture.means - REACH * widths).min(0).reshape(3, *[1] * (places.ndim - 1))
    high = (mixture.means + REACH * widths).max(0).reshape(low.shape)
    near = np.all((places > low) & (places < high), axis=0)
    x = places[:, near].astype(np.float64)
    density = np.zeros(x.shape[1])
    for weight, mean, covariance in zip(mixture.weights, mixture.means, mixture.covariances, strict=True):
        d = x - mean[:, None]
        mahalanobis = np.einsum("in,in->n", d, np.linalg.inv(covariance) @ d)
        density += weight * np.exp(-0.5 * mahalanobis) / np.sqrt((2 * np.pi) ** 3 * np.linalg.det(covariance))
    ratio = np.full(places.shape[1:], NOTHING)
    ratio[near] = np.maximum(density / mixture.threshold, NOTHING)
    return ratio
