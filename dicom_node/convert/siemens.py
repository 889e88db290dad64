"""Siemens, one MR Image Storage object for each slice (VB, VD, VE; XA in its "interoperability" export).

ImageType names the component third: `ORIGINAL\\PRIMARY\\M\\ND`, `…\\P\\…`.  Phase −π…π is stored in 12 bits; most
systems write RescaleSlope 2 and RescaleIntercept −4096 with it, some exports leave both out.  Sign: as this project's.
The encoding was measured on real files; the reader itself has been run on synthetic ones only.
"""

from __future__ import annotations

import math
import re

from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from dicom_node.convert.header import text, words
from dicom_node.convert.reader import (
    Scale,
    complex_image_component,
    image_type_component,
    interpolated_phase,
    manufacturer_says,
    rescale,
)
from dicom_node.errors import NotConvertible
from dicom_node.model import Component

SIGN = 1
ALTERNATING: tuple[int, ...] = ()

_RESCALED_TO_RADIAN = math.pi / 4096
"""Rescaled phase runs from −4096 to 4094."""
_RESCALE = Scale(2, -4096)
_UNRESCALED = (None, Scale(1, 0))
_STORED_LEVELS = 4096
"""12 bits over one turn."""

_FIELD_MAPPING = re.compile(r"\*?FM\dD")
"""Sequence names of the product field mapping, *fm2d2r and the like: two magnitudes and one phase difference."""

_VELOCITY_ENCODING = re.compile(r"_V\d+")
"""Sequence names of phase-contrast flow, *fl2d1_v150in and the like: velocity in cm/s and its direction."""

_PLAIN = {"NONE", "ND", "MFSPLIT"}
"""Words after the component that change nothing in the image: "not distortion corrected" and bookkeeping."""


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "SIEMENS") and text(header, "SOPClassUID") == MRImageStorage


def refusal(plane: Dataset) -> str:
    name = text(plane, "SequenceName")
    if _FIELD_MAPPING.match(name):
        return (
            f"Siemens field mapping (sequence {name.lower()}): its phase is the difference of two echoes' phases, "
            "not the phase of an echo"
        )
    if _VELOCITY_ENCODING.search(name):
        return f"Siemens phase contrast (sequence {name.lower()}): its phase is velocity"
    return ""


def component(plane: Dataset) -> Component | None:
    return complex_image_component(plane) or image_type_component(plane, 2, 3)


def processing(plane: Dataset) -> str:
    return " ".join(sorted(set(words(plane, "ImageType")[3:]) - _PLAIN))


def radian(plane: Dataset) -> tuple[Scale, ...]:
    found = rescale(plane)
    if found == _RESCALE:
        return (Scale(found.slope * _RESCALED_TO_RADIAN, found.intercept * _RESCALED_TO_RADIAN),)
    if found in _UNRESCALED:
        return (Scale(2 * math.pi / _STORED_LEVELS, -math.pi),)
    raise NotConvertible(
        f"Siemens phase has RescaleSlope {found.slope:g} and RescaleIntercept {found.intercept:g}; "
        "expected 2 and −4096, or neither: with any other the scale to radian is unknown. "
        "Send the images as the scanner wrote them, or configure the scale for this scanner"
    )


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    return tuple(interpolated_phase(word) for word in words(plane, "ImageType") if word in ("DIS2D", "DIS3D"))
