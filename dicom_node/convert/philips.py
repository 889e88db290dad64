"""Philips, one MR Image Storage object for each slice, usually all echoes and components in one series.

ImageType names the component fourth: `ORIGINAL\\PRIMARY\\M_FFE\\M\\FFE`, `…\\PHASE MAP\\P\\FFE`.  Phase is rescaled to
milliradian; RescaleType says so.  The private scale slope (2005,100E) belongs to magnitude and has nothing to do with
phase, so scale and unit are read from standard attributes and survive anonymisation.  Sign: as this project's.
Validated on real files of an Ingenia Elition X 5.7.1.
"""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from dicom_node.convert.header import private, text
from dicom_node.convert.reader import (
    RADIAN_PER_UNIT,
    Scale,
    complex_image_component,
    image_type_component,
    manufacturer_says,
    rescale,
    units,
)
from dicom_node.errors import NotConvertible
from dicom_node.model import Component

SIGN = 1
ALTERNATING: tuple[int, ...] = ()

_OTHER_QUANTITY = {"CM/S", "CM/SEC", "MM/S", "MS", "PPM"}
_HALF_TURN = 3142
"""Philips' π in milliradian, the negative of the phase's intercept."""


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "PHILIPS") and text(header, "SOPClassUID") == MRImageStorage


def refusal(plane: Dataset) -> str:
    if component(plane) is not Component.PHASE:
        return ""
    other = [unit for unit in units(plane) if unit in _OTHER_QUANTITY]
    return f"Philips phase image whose unit is {other[0].lower()}, not radian: another quantity" if other else ""


def component(plane: Dataset) -> Component | None:
    return complex_image_component(plane) or image_type_component(plane, 3, 2) or _private_component(plane)


def _private_component(plane: Dataset) -> Component | None:
    """(2005,xx11) says M or P where ImageType has lost its end."""
    return {"M": Component.MAGNITUDE, "P": Component.PHASE}.get(
        private(plane, 0x2005, "Philips MR Imaging DD 001", 0x11)
    )


def processing(plane: Dataset) -> str:
    return ""


def radian(plane: Dataset) -> tuple[Scale, ...]:
    found = rescale(plane)
    if found is None:
        raise NotConvertible(
            "Philips phase has no RescaleSlope and RescaleIntercept: its scale to radian is unknown. "
            "Send the images as the scanner wrote them"
        )
    said = units(plane)
    per_unit = next((RADIAN_PER_UNIT[unit] for unit in said if unit in RADIAN_PER_UNIT), None)
    if per_unit is None and round(found.intercept) == -_HALF_TURN:
        per_unit = 1e-3  # the unit was lost on the way, but no other unit has its half turn at 3142
    if per_unit is None:
        raise NotConvertible(
            f"Philips phase has RescaleIntercept {found.intercept:g} and unit {' or '.join(said) or '(none)'}; "
            f"expected mrad or rad, or an intercept of −{_HALF_TURN}: its scale to radian is unknown"
        )
    return (Scale(found.slope * per_unit, found.intercept * per_unit),)


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    return ()
