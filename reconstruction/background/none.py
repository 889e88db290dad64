"""No removal of the background: for inversions that take the total field, and for phantoms that have none."""

from __future__ import annotations

from array_api_compat import array_namespace

from reconstruction.acquisition import BoolArray, FloatArray


def none(field: FloatArray, mask: BoolArray) -> tuple[FloatArray, BoolArray]:
    """The field in ppm, 0 outside the mask, and the mask, as they are; (x, y, z)."""
    return array_namespace(field).where(mask, field, 0.0), mask
