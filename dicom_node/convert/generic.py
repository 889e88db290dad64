"""Any vendor that the other readers do not know, or none: an anonymised header.

Only what the standard has is used: ComplexImageComponent, or a letter in ImageType, and the unit of the Real World
Value Mapping or of Rescale.  Without a unit, the two pairs of Rescale that only phase has (Siemens' 2 and −4096,
Philips' intercept of −3142) are taken for what they are, and else the scale is inferred from the stored range.  The
standard does not define the sign; it is taken as this project's, and the result says so.
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from dicom_node.convert.header import text
from dicom_node.convert.planes import SUPPORTED
from dicom_node.convert.reader import (
    RADIAN_PER_UNIT,
    Scale,
    by_unit,
    complex_image_component,
    half_turns,
    image_type_component,
    representable,
    rescale,
    units,
)
from dicom_node.model import Component

SIGN = 1
ALTERNATING: tuple[int, ...] = (2,)

_SIEMENS = Scale(2, -4096)
_PHILIPS_HALF_TURN = 3142.0
_HALF_TURNS = (math.pi, 1e3 * math.pi, 4096.0)
_DIMENSIONLESS = ("1", "NONE", "NORMALIZED", "UNSPECIFIED")


def reads(header: Dataset) -> bool:
    return text(header, "SOPClassUID") in SUPPORTED


def refusal(plane: Dataset) -> str:
    if component(plane) is not Component.PHASE:
        return ""
    other = [unit for unit in units(plane) if unit not in RADIAN_PER_UNIT and unit not in _DIMENSIONLESS]
    return f"phase image whose unit is {other[0].lower()}, not radian: another quantity" if other else ""


def component(plane: Dataset) -> Component | None:
    return complex_image_component(plane) or image_type_component(plane, 2, 3)


def processing(plane: Dataset) -> str:
    return ""


def radian(plane: Dataset) -> tuple[Scale, ...]:
    found = rescale(plane)
    if scales := by_unit(plane):
        return scales
    if found == _SIEMENS:
        return half_turns(plane, -found.intercept)
    if found and round(found.intercept) == -_PHILIPS_HALF_TURN:
        return half_turns(plane, 1e3 * math.pi)
    return (*representable(plane), *half_turns(plane, *_HALF_TURNS))


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    vendor = text(plane, "Manufacturer")
    return (
        f"{'the vendor ' + vendor + ' is not known' if vendor else 'the header names no vendor'}: phase was read by "
        "standard attributes alone, and its sign, which vendors define differently, was taken as stored: check the "
        "sign of the map",
    )
