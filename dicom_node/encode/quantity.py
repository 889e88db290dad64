"""The quantities that go out as images: how a value becomes a stored integer, what unit it has, how it is shown.

The stored integer *is* the value in its unit (ppb, 1/s): slope 1, intercept 0.  A viewer that ignores Rescale, which
the MR Image IOD does not know (PS3.3 A.4.3), still shows right numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from reconstruction import Maps

INT16 = np.iinfo(np.int16)


@dataclass(frozen=True)
class Quantity:
    """name: of the volume in `Maps`.  title: for people.  label: ImageType's fourth value.  number: place among the
    outputs.
    per_unit: what a value of `Maps` is multiplied with to be in `unit`.  window: shown from black to white, in `unit`.
    """

    name: str
    title: str
    label: str
    number: int
    concept: Code
    unit: Code
    per_unit: float
    window: tuple[int, int]


QSM = Quantity(
    name="chi",
    title="QSM",
    label="QSM",
    number=1,
    concept=codes.DCM.MagneticSusceptibility,
    unit=Code("[ppb]", "UCUM", "ppb"),
    per_unit=1000.0,
    window=(-150, 200),
)
R2STAR = Quantity(
    name="r2star",
    title="R2*",
    label="R2STAR",
    number=2,
    concept=codes.DCM.R2Star,
    # 1/s in whole numbers: the noise of R2* at one voxel is larger than the rounding, so that regional means keep
    # their precision, and the exact figures stand in the report.
    unit=Code("/s", "UCUM", "1/s"),
    per_unit=1.0,
    window=(0, 100),
)


def quantities(maps: Maps) -> tuple[Quantity, ...]:
    """Those that these maps hold."""
    return (QSM,) if maps.r2star is None else (QSM, R2STAR)


def zero(maps: Maps) -> str:
    """What 0 ppb is, in words that follow a unit."""
    if not maps.reference.mask.any():
        return "without reference"
    return f"relative to {in_words(maps.reference.name)}"


def in_words(region: str) -> str:
    """A region's name for people: "whole brain", "CSF"."""
    return {"csf": "CSF"}.get(region, region.replace("_", " "))


def values(maps: Maps, quantity: Quantity) -> NDArray[np.float64]:
    """(x, y, z), in the quantity's unit, 0 where it is not known: χ outside the mask, R2* outside the brain.

    Raises ValueError for NaN or infinity where it is known.
    """
    known = maps.mask if quantity is QSM else maps.mask | maps.brain_mask
    inside = np.where(known, np.asarray(getattr(maps, quantity.name), np.float64) * quantity.per_unit, 0.0)
    if not np.isfinite(inside).all():
        raise ValueError(f"{quantity.name} holds NaN or infinity inside the mask; expected finite numbers")
    return inside


def stored(maps: Maps, quantity: Quantity) -> NDArray[np.int16]:
    """(x, y, z), the integers of the image: rounded, clipped to what int16 can hold."""
    return np.clip(np.rint(values(maps, quantity)), INT16.min, INT16.max).astype(np.int16)


def clipped(maps: Maps) -> tuple[str, ...]:
    """A warning for each quantity with voxels beyond int16."""
    warnings = []
    for quantity in quantities(maps):
        rounded = np.rint(values(maps, quantity))
        beyond = int(np.count_nonzero((rounded < INT16.min) | (rounded > INT16.max)))
        if beyond:
            warnings.append(
                f"{beyond} voxels of {quantity.title} lie outside {INT16.min}..{INT16.max} {quantity.unit.meaning} "
                "and were clipped"
            )
    return tuple(warnings)
