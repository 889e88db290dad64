"""χ-separation: iron and myelin within one voxel told apart, by what adds up in R2′ and cancels in χ.  Experimental.

Shin et al. 2021, doi:10.1016/j.neuroimage.2021.118371: χ = χ⁺ + χ⁻ and R2′ = Dr (χ⁺ − χ⁻), with χ⁺ ≥ 0 ≥ χ⁻.  From the
gradient echo alone, R2′ is R2* less the R2 that tissue has at the field (Dimov et al. 2022, doi:10.1111/jon.13014, and
against histology doi:10.3390/tomography8030127).
"""

from __future__ import annotations

import numpy as np

from reconstruction import quality
from reconstruction.acquisition import GYROMAGNETIC_RATIO, BoolArray, FloatArray
from reconstruction.stage import Positive

RELAXIVITY_FIELD = 3.0
"""Tesla at which Dr was measured.  Static dephasing is proportional to the field (Yablonskiy & Haacke 1994,
doi:10.1002/mrm.1910320610), and Dr with it."""

R2_AT_0, R2_PER_TESLA = 9.2, 1.7
"""R2 of tissue in 1/s: the line through the T2 of grey and white matter at 1.5, 3 and 7 T (82, 72 and 47 ms on average:
Cox & Gowland 2010, PubMed 20593370)."""

WARNING = (
    "separation: para- and diamagnetic sources are experimental: R2′ was taken from R2* with one R2 for all tissue; "
    "beside air, where R2* also holds dephasing across the voxel, both are too large"
)


FLUID = ("csf", "ventricle")
"""A reference with one of these in its name is cerebrospinal fluid."""


def chi_separation(
    chi: FloatArray,
    r2star: FloatArray | None,
    noise: FloatArray,
    mask: BoolArray,
    larmor_frequency: float,
    reference: str = "csf",
    *,
    relaxivity: Positive = 137.0,
    r2: float = 0.0,
) -> tuple[FloatArray, FloatArray] | None:
    """χ⁺ and χ⁻ in ppm, float32 (x, y, z), 0 outside the mask; their sum is χ.  None for a single echo.

    chi: ppm relative to CSF, float32 (x, y, z).  r2star: 1/s.  noise: of the field, inf where it is not known: there
    only the sign of χ is told.  mask: bool (x, y, z).  larmor_frequency: Hz.
    reference: what χ is relative to; anything but fluid is warned of.
    relaxivity: Dr in 1/s per ppm at 3 T, the paper's from deep grey matter; scaled to the scan's field.
    r2: of tissue in 1/s; 0 takes what is known of it at the field.
    Where R2′ is too small for the χ that was found, χ is believed: one source alone.
    """
    quality.warn(WARNING)
    if not any(word in reference for word in FLUID):
        quality.warn(
            f"separation: χ is relative to {reference}, expected CSF: para- and diamagnetic sources are told apart by "
            'a zero that is not that of fluid; set [reference] method = "csf"'
        )
    if r2star is None:
        quality.warn("separation: a single echo has no R2*, without which sources cannot be told apart; none are given")
        return None
    field_strength = larmor_frequency / GYROMAGNETIC_RATIO
    irreversible = r2 or R2_AT_0 + R2_PER_TESLA * field_strength
    dr = np.float32(relaxivity * field_strength / RELAXIVITY_FIELD)
    quality.figure("separation.relaxivity", float(dr))
    quality.figure("separation.r2", irreversible)
    r2prime = np.where(np.isfinite(noise), r2star - np.float32(irreversible), np.float32(0))
    total = np.maximum(r2prime / dr, np.abs(chi))  # χ⁺ − χ⁻
    para, dia = (total + chi) / 2, (chi - total) / 2
    zero = np.float32(0)
    return np.where(mask, para, zero).astype(np.float32), np.where(mask, dia, zero).astype(np.float32)
