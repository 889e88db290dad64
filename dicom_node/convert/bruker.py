"""Bruker (preclinical), Enhanced MR Image Storage: real and imaginary part, usually an object each.

ComplexImageComponent tells them apart; each is scaled by its own Rescale.  Every second plane along any axis may carry
−1 (`polarity`) [MEDI].  The sign is unverified: it is taken as stored, while MEDI reads the parts as it reads GE's.
Synthetic data only.
"""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from dicom_node.convert.reader import (
    Scale,
    by_unit,
    complex_image_component,
    half_turns,
    image_type_component,
    manufacturer_says,
    representable,
)
from dicom_node.model import Component

SIGN = 1
ALTERNATING: tuple[int, ...] = (0, 1, 2)

_HALF_TURNS = (math.pi, 1e3 * math.pi, 4096.0)
"""What other vendors have; of Bruker's phase, where it is sent instead of the parts, nothing is known."""


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "BRUKER")


def refusal(plane: Dataset) -> str:
    return ""


def component(plane: Dataset) -> Component | None:
    return complex_image_component(plane) or image_type_component(plane, 2, 3)


def processing(plane: Dataset) -> str:
    return ""


def radian(plane: Dataset) -> tuple[Scale, ...]:
    return by_unit(plane) or (*representable(plane), *half_turns(plane, *_HALF_TURNS))


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    return ("the sign of Bruker's phase is not verified on real images: check the sign of the map",)
