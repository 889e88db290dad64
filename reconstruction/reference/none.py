"""No reference: χ keeps the zero that the inversion gave it."""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray, Geometry
from reconstruction.maps import Reference


def none(chi: FloatArray, r2star: FloatArray | None, mask: BoolArray, geometry: Geometry) -> Reference:
    """An empty region.  Arguments as in `stage`; only the shape of `mask` is used."""
    return Reference("none", np.zeros_like(mask), 0.0, 0.0)
