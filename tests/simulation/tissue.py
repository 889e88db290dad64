"""What the tissues of the simulated head are made of.

Susceptibility: ppm relative to water and soft tissue, of the order that the head phantom of the second QSM challenge
uses (Marques 2021, doi:10.1002/mrm.28716) and that iron in post-mortem nuclei gives (Langkammer 2012,
doi:10.1016/j.neuroimage.2012.05.049).  Air against water: 0.36 − (−9.05) ppm (Schenck 1996, doi:10.1118/1.597854).
Relaxation of grey and white matter between 1.5 and 7 T: R2* Peters 2007 (doi:10.1016/j.mri.2007.02.014), T1 Rooney
2007 (doi:10.1002/mrm.21122).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

AIR_PPM = 0.36 - (-9.05)
FAT_SHIFT_PPM = -3.4
"""The chemical shift of methylene protons against water."""


@dataclass(frozen=True)
class Tissue:
    """chi: ppm.  density: protons relative to water.  t1: s at 3 T.  r2star: (1/s at 0 T, 1/s per T)."""

    chi: float
    density: float
    t1: float
    r2star: tuple[float, float]
    shift: float = 0.0


MUSCLE = Tissue(0.0, 0.75, 1.2, (20.0, 4.0))
FAT = Tissue(0.6, 0.9, 0.38, (15.0, 3.0), FAT_SHIFT_PPM)
BONE = Tissue(-2.1, 0.06, 0.4, (300.0, 100.0))
CSF = Tissue(0.0, 1.0, 4.0, (0.5, 0.4))
GREY = Tissue(0.015, 0.84, 1.4, (6.2, 3.35))
WHITE = Tissue(-0.03, 0.71, 0.9, (8.1, 4.05))
VEIN = Tissue(0.35, 0.85, 1.6, (5.0, 14.0))
AIR = Tissue(AIR_PPM, 0.0, 1.0, (0.0, 0.0))
BLEED = Tissue(1.2, 0.75, 1.2, (20.0, 40.0))
CALCIFICATION = Tissue(-1.5, 0.3, 1.0, (30.0, 30.0))

NUCLEI_CHI = {
    "putamen": 0.05,
    "caudate": 0.05,
    "nucleus_accumbens": 0.03,
    "globus_pallidus_external": 0.13,
    "globus_pallidus_internal": 0.12,
    "substantia_nigra": 0.11,
    "red_nucleus": 0.10,
    "subthalamic_nucleus": 0.11,
}
NUCLEUS_DENSITY, NUCLEUS_T1 = 0.78, 1.1

R2STAR_OF_IRON = 42.0
"""1/s per ppm and T: about 125 per ppm at 3 T, the slope of R2* against χ over the nuclei (Langkammer 2012)."""

FLIP_ANGLE = math.radians(15)
READOUT_TAIL = 5e-3
"""s between the last echo and the next excitation."""


def nucleus(chi: float) -> Tissue:
    """Grey matter whose iron gives it `chi` ppm."""
    base, slope = GREY.r2star
    return Tissue(chi, NUCLEUS_DENSITY, NUCLEUS_T1, (base, slope + R2STAR_OF_IRON * abs(chi)))


def steady_state(tissue: Tissue, repetition_time: float, field_strength: float) -> float:
    """A spoiled gradient echo at TE = 0: ρ sin α (1 − E1)/(1 − E1 cos α), with T1 ∝ B₀^0.38 (Rooney 2007)."""
    e1 = math.exp(-repetition_time / (tissue.t1 * (field_strength / 3) ** 0.38))
    return tissue.density * math.sin(FLIP_ANGLE) * (1 - e1) / (1 - e1 * math.cos(FLIP_ANGLE))


def r2star(tissue: Tissue, field_strength: float) -> float:
    """1/s at a field in T."""
    base, slope = tissue.r2star
    return base + slope * field_strength
