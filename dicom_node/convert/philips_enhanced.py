"""Philips, Enhanced MR Image Storage: one object with a frame for each slice, echo and component.

The component stands in each frame's ComplexImageComponent.  RescaleType is `US` here; that phase is in milliradian
stands in each frame's Real World Value Mapping only.  Validated on real files of an Ingenia Elition X 5.7.1.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.convert.philips import ALTERNATING, SIGN, component, processing, radian, refusal, warnings
from dicom_node.convert.planes import is_enhanced
from dicom_node.convert.reader import manufacturer_says

__all__ = ["ALTERNATING", "SIGN", "component", "processing", "radian", "reads", "refusal", "warnings"]


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "PHILIPS") and is_enhanced(header)
