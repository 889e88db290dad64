"""GE, MR Image Storage: usually all echoes and components in one series.

ImageType says OTHER; the private element (0043,xx2F) of GEMS_PARM_01 tells magnitude, phase, real and imaginary part
apart [MEDI, QSMxT, dcm2niix].  Real and imaginary parts are preferred where they are there: the scale of phase is in no
header, ±3142 and ±4096 both occur, and which of the two it is must be inferred.  Sign: the conjugate of this project's
[MEDI, QSMxT].  Every second slice may carry −1 (`polarity`).  Synthetic data only.
"""

from __future__ import annotations

import math
import re

from pydicom.dataset import Dataset

from dicom_node.convert.header import private, text, whole, words
from dicom_node.convert.reader import (
    Scale,
    by_unit,
    complex_image_component,
    half_turns,
    image_type_component,
    manufacturer_says,
)
from dicom_node.model import Component

SIGN = -1
ALTERNATING: tuple[int, ...] = (2,)

_HALF_TURNS = (1e3 * math.pi, 4096.0)
"""Stored values of π: milliradian (3142), or 4096."""

_COMPONENTS = {"0": Component.MAGNITUDE, "1": Component.PHASE, "2": Component.REAL, "3": Component.IMAGINARY}

_FIELD_MAP = re.compile(r"B0_?(MAP|RF)", re.IGNORECASE)
"""Names of GE's field mapping sequences, 2D and 3D (B0map, B0rf, 3db0map) [dcm2niix #501]."""


def reads(header: Dataset) -> bool:
    vendor = text(header, "Manufacturer")
    if not vendor:
        return _private_component(header) is not None
    return vendor == "GE" or manufacturer_says(header, "GE MEDICAL", "GE HEALTHCARE")


def refusal(plane: Dataset) -> str:
    for element in (0x9C, 0x9E):
        name = private(plane, 0x0019, "GEMS_ACQU_01", element)
        if _FIELD_MAP.search(name):
            return (
                f"GE field map (sequence {name}): a field in Hz and a magnitude in one series, both marked as magnitude"
            )
    if "EPI_GEMS" in words(plane, "ScanOptions"):
        return "echo-planar image (ScanOptions EPI_GEMS)"
    return ""


def component(plane: Dataset) -> Component | None:
    return _private_component(plane) or complex_image_component(plane) or image_type_component(plane, 2, 3)


def _private_component(plane: Dataset) -> Component | None:
    return _COMPONENTS.get(private(plane, 0x0043, "GEMS_PARM_01", 0x2F))


def processing(plane: Dataset) -> str:
    return ""


def radian(plane: Dataset) -> tuple[Scale, ...]:
    return by_unit(plane) or half_turns(plane, *_HALF_TURNS)


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    located = private(plane, 0x0021, "GEMS_RELA_01", 0x4F)
    acquired = int(located) if located.isdigit() else whole(plane, "LocationsInAcquisition") or 0
    if not 0 < acquired < slices:
        return ()
    return (f"slices were interpolated from {acquired} to {slices} (ZIP)",)
