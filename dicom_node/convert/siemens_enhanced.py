"""Siemens, Enhanced MR Image Storage (XA): one object for each echo and component.

The component stands in each frame's ComplexImageComponent, the scale in each frame's PixelValueTransformation, with the
same numbers as in the classic objects.  Real files of a field map were read; multi-echo phase is known from synthetic
files only.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.convert.planes import is_enhanced
from dicom_node.convert.reader import manufacturer_says
from dicom_node.convert.siemens import ALTERNATING, SIGN, component, processing, radian, refusal, warnings

__all__ = ["ALTERNATING", "SIGN", "component", "processing", "radian", "reads", "refusal", "warnings"]


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "SIEMENS") and is_enhanced(header)
