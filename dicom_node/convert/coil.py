"""Whether an image is of one coil element alone: scanners can send those beside or instead of the combined image."""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from dicom_node.convert.header import items, private, text

_ONE_ELEMENT = re.compile(r"[A-Z]{1,4}\d{1,3}")
"""H12, A3; combined images list groups of elements: HEA;HEP, HE1-4, C:HC1-6 [dcm2niix]."""


def coil_element(plane: Dataset) -> str:
    """The one element that the plane is of, "" where the header names several or none.

    Siemens' (0051,xx0F), else ReceiveCoilName, else the one used element of the MR receive coil macro (PS3.3
    C.8.13.5.7).  A name alone proves nothing: volumes of one element are told by there being others of the same place.
    """
    used = [
        text(element, "MultiCoilElementName")
        for element in items(plane, "MultiCoilDefinitionSequence")
        if text(element, "MultiCoilElementUsed") != "NO"
    ]
    names = (private(plane, 0x0051, "SIEMENS MR HEADER", 0x0F).upper(), text(plane, "ReceiveCoilName"), *used[:1])
    if len(used) > 1:
        names = names[:-1]
    return next((name for name in names if _ONE_ELEMENT.fullmatch(name)), "")
