"""Hitachi, now Fujifilm, MR Image Storage: ImageType's third value is OTHER for magnitude and PHASE MAP for phase.

Phase: −2048…2047 after Rescale is −π…π [MEDI].  Sign: the conjugate of this project's [MEDI alone].
Synthetic data only.
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from dicom_node.convert.header import text, words
from dicom_node.convert.reader import (
    Scale,
    by_unit,
    complex_image_component,
    image_type_component,
    manufacturer_says,
    rescale,
)
from dicom_node.model import Component

SIGN = -1
ALTERNATING: tuple[int, ...] = ()

_SMALLEST, _LARGEST = -2048, 2047
"""Rescaled values of −π and π."""

_VERTICAL_FIELD = ("AIRIS", "ALTAIRE", "APERTO", "OASIS")
"""Open magnets whose field lies across the patient, not along."""


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "HITACHI", "FUJIFILM")


def refusal(plane: Dataset) -> str:
    model = text(plane, "ManufacturerModelName")
    if any(name in model for name in _VERTICAL_FIELD):
        return f"{model.capitalize()} is an open magnet with a vertical field; the node knows fields along the patient"
    return ""


def component(plane: Dataset) -> Component | None:
    if words(plane, "ImageType")[2:3] == ("OTHER",):
        return complex_image_component(plane) or Component.MAGNITUDE
    return complex_image_component(plane) or image_type_component(plane, 2, 3)


def processing(plane: Dataset) -> str:
    return ""


def radian(plane: Dataset) -> tuple[Scale, ...]:
    found = rescale(plane) or Scale(1, 0)
    step = 2 * math.pi / (_LARGEST - _SMALLEST)
    return by_unit(plane) or (Scale(found.slope * step, (found.intercept - _SMALLEST) * step - math.pi),)


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    return ()
