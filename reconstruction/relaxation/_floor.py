"""The noise floor of a magnitude: what its square holds on average without any signal.

Noise in both parts of a complex signal adds 2σ² to the mean of its squared magnitude, at any signal (the second moment
of the Rice distribution: Gudbjartsson & Patz 1995, doi:10.1002/mrm.1910340618).
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.noise import noise_of_detail
from reconstruction.pieces import box_of

ENOUGH = 64
"""Voxels along each side of the block in the brain's middle from which the noise is taken: a quarter of a million."""


def noise_power(magnitude: FloatArray, mask: BoolArray) -> float:
    """2σ² in the magnitude's unit squared, from the last echo's finest detail; 0 where it cannot be told.

    magnitude: float32 (echo, x, y, z).  mask: bool (x, y, z).
    σ is that of one receiver, or of receivers combined with their sensitivities; a sum of squares over N receivers has
    a floor N times higher, of which only this part is known.
    """
    if not mask.any():
        return 0.0
    block = tuple(_middle(side) for side in box_of(mask))
    return 2 * noise_of_detail(np.ascontiguousarray(magnitude[-1][block]), np.ascontiguousarray(mask[block])) ** 2


def _middle(side: slice) -> slice:
    start = side.start + max(0, (side.stop - side.start - ENOUGH) // 2)
    return slice(start, min(side.stop, start + ENOUGH))
