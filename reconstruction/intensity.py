"""All echoes together with the coils' shading taken out: the image on which tissue is told from bone and air."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.noise import noise_of_detail
from reconstruction.smoothing import smooth

SHADING_MM = 30.0
"""Standard deviation of the Gaussian that tells shading from anatomy: wider than a lobe, narrower than the head."""

FOREGROUND = 0.1
"""Fraction of the bright signal above which a voxel counts as tissue (t of doi:10.1002/hbm.10062)."""

ABOVE_AIR = 1.5
"""Over the level of air's noise, which in the root sum of squares of E echoes is √(2E) times one channel's noise."""

NEAR = 1e-3
"""Share of tissue under the Gaussian below which a place is outside the head (some 100 mm from it)."""


SAMPLES_ALONG = 64
"""Along each axis at least, where a percentile is estimated: the 1 % beyond the 99th are still thousands of voxels."""


def percentile(volume: FloatArray, percent: float, where: BoolArray | None = None) -> float:
    """Of a volume (x, y, z), or of its voxels in the mask `where`, from an even grid of them; 0 for none.

    A large volume has millions of voxels and an image's levels do not need them all.
    """
    grid = tuple(slice(None, None, max(1, n // SAMPLES_ALONG)) for n in volume.shape)
    if where is None:
        return float(np.percentile(volume[grid], percent))
    sampled = volume[grid][where[grid]]
    if sampled.size < SAMPLES_ALONG:
        sampled = volume[where]
    return float(np.percentile(sampled, percent)) if sampled.size else 0.0


def even_intensity(magnitude: FloatArray, geometry: Geometry) -> FloatArray:
    """Root sum of squares over echoes divided by its own shading; 1 is the local mean of tissue.

    magnitude: float32 (echo, x, y, z).  Returns float32 (x, y, z); 0 where there is no tissue near.
    """
    combined = np.sqrt(np.einsum("exyz,exyz->xyz", magnitude, magnitude))
    bright = percentile(combined, 98)
    air = noise_of_detail(combined, combined > 0) * np.sqrt(2 * len(magnitude))
    tissue = combined > max(FOREGROUND * bright, ABOVE_AIR * air)
    shading = _local_mean(np.minimum(combined, bright), tissue, geometry)
    return np.asarray(combined / shading, np.float32)


def _local_mean(image: FloatArray, where: BoolArray, geometry: Geometry) -> FloatArray:
    """Gaussian mean over the marked voxels; infinite where there are none near."""
    weight = where.astype(np.float32)
    near = smooth(weight, geometry, SHADING_MM)
    total = smooth(image * weight, geometry, SHADING_MM)
    return np.where(near > NEAR, total / np.maximum(near, NEAR), np.float32(np.inf))
