"""All echoes together with the coils' shading taken out: the image on which tissue is told from bone and air."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import FloatArray, Geometry
from reconstruction.smoothing import smooth

SHADING_MM = 30.0
"""Standard deviation of the Gaussian that tells shading from anatomy: wider than a lobe, narrower than the head."""

FOREGROUND = 0.1
"""Fraction of the bright signal above which a voxel counts as tissue (t of doi:10.1002/hbm.10062)."""


def even_intensity(magnitude: FloatArray, geometry: Geometry) -> FloatArray:
    """Root sum of squares over echoes divided by its own shading; 1 is the local mean of tissue.

    magnitude: float32 (echo, x, y, z).  Returns float32 (x, y, z); 0 where there is no tissue near.
    """
    combined = np.sqrt(np.einsum("exyz,exyz->xyz", magnitude, magnitude))
    tissue = (combined > FOREGROUND * np.percentile(combined, 98)).astype(np.float32)
    bright = np.minimum(combined, np.percentile(combined, 98))
    near = smooth(tissue, geometry, SHADING_MM)
    shading = smooth(bright * tissue, geometry, SHADING_MM) / np.maximum(near, 1e-6)
    return np.asarray(np.where((shading > 0) & (near > 1e-3), combined / np.maximum(shading, 1e-12), 0), np.float32)
