"""True susceptibility-weighted imaging: the magnitude, made darker where χ says that there is a vein.

Liu et al. 2014, doi:10.1002/jmri.24413 (J Magn Reson Imaging 40:698).
"""

from __future__ import annotations

import numpy as np

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.stage import Signed

STEEPEST_PPM = 1e-6
"""A thousandth of a part per billion."""


def tswi(
    magnitude: FloatArray,
    chi: FloatArray,
    mask: BoolArray,
    *,
    lower_ppm: Signed = 0.0,
    upper_ppm: float = 0.45,
    power: float = 2.0,
) -> FloatArray:
    """Mean magnitude of the echoes times the χ mask to a power, unit of the magnitude, float32 (x, y, z).

    magnitude: float32 (echo, x, y, z).  chi: ppm, float32 (x, y, z).  mask: bool (x, y, z), where χ is valid; outside
    it nothing is darkened.
    lower_ppm, upper_ppm: χ at which the mask leaves 1 and reaches 0; the upper one is that of venous blood,
    4π · 0.27 ppm · haematocrit 0.44 · (1 − saturation 0.7) (Spees 2001, doi:10.1002/mrm.1072).
    power: how often the mask is multiplied.
    """
    weight = np.where(mask, susceptibility_mask(chi, lower_ppm, upper_ppm), np.float32(1))
    return np.asarray(magnitude.mean(axis=0) * weight ** np.float32(power), np.float32)


def susceptibility_mask(chi: FloatArray, lower: float, upper: float) -> FloatArray:
    """1 for χ ≤ lower, falling to 0 at χ = upper; a step at `upper` where the two are not in order."""
    span = max(upper - lower, STEEPEST_PPM)
    return np.clip((np.float32(upper) - chi) / np.float32(span), np.float32(0), np.float32(1))
