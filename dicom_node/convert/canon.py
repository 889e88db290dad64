"""Canon, formerly Toshiba: Enhanced MR Image Storage with ComplexImageComponent in each frame.

Classic objects name no component at all and cannot be read.  ComplexImageComponent was seen on real magnitude images;
no real phase was: scale and sign are unverified.  The scale is taken from a unit where one stands, else inferred from
the stored range.  Synthetic data only.
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from dicom_node.convert.header import words
from dicom_node.convert.reader import (
    Scale,
    by_unit,
    complex_image_component,
    half_turns,
    image_type_component,
    interpolated_phase,
    manufacturer_says,
    representable,
)
from dicom_node.model import Component

SIGN = 1
ALTERNATING: tuple[int, ...] = ()

_HALF_TURNS = (1e3 * math.pi, 4096.0)
"""What other vendors have; nothing is known of Canon."""


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "CANON", "TOSHIBA")


def refusal(plane: Dataset) -> str:
    return ""


def component(plane: Dataset) -> Component | None:
    return complex_image_component(plane) or image_type_component(plane, 2, 3)


def processing(plane: Dataset) -> str:
    return ""


def radian(plane: Dataset) -> tuple[Scale, ...]:
    return by_unit(plane) or (*representable(plane), *half_turns(plane, *_HALF_TURNS))


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    unverified = "the scale and the sign of Canon's phase are not verified on real images: check the sign of the map"
    if "GDC" in words(plane, "ImageType"):
        return unverified, interpolated_phase("GDC")
    return (unverified,)
