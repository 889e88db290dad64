"""No removal of the phase offset: for phase that the scanner has already combined to φ₀ = 0, and for a single echo."""

from __future__ import annotations

from reconstruction.acquisition import FloatArray, Geometry


def none(phase: FloatArray, magnitude: FloatArray, echo_times: tuple[float, ...], geometry: Geometry) -> FloatArray:
    """The phase as it is.

    phase, magnitude: float32 (echo, x, y, z), radian and arbitrary unit.  echo_times: s.
    """
    return phase
