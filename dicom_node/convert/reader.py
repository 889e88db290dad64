"""What a vendor's file must publish, and what vendors share.

A reader knows one vendor's way of writing phase: which objects are its own, which component a plane holds, and the law
from stored value to radian.  It sees planes (`planes.py`), so classic attributes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from dicom_node.convert.header import number, text, words
from dicom_node.model import Component


@dataclass(frozen=True)
class Scale:
    """value = slope × stored + intercept."""

    slope: float
    intercept: float


class Reader(Protocol):
    """The call shape of `siemens`, `philips`, …: modules."""

    __name__: str

    def reads(self, header: Dataset) -> bool:
        """Whether the object is of this vendor and kind."""

    def refusal(self, plane: Dataset) -> str:
        """What speaks against this plane in this vendor's words; "" if nothing."""

    def component(self, plane: Dataset) -> Component | None:
        """None where the header does not tell."""

    def processing(self, plane: Dataset) -> str:
        """What was done to the image besides, sorted words."""

    def radian(self, plane: Dataset) -> Scale:
        """From stored phase to radian.  Raises NotConvertible where the header leaves the scale open."""

    def warnings(self, plane: Dataset) -> tuple[str, ...]:
        """What a reader of the result should know of how this vendor made the images."""


def manufacturer_says(header: Dataset, *names: str) -> bool:
    manufacturer = text(header, "Manufacturer")
    return any(name in manufacturer for name in names)


def rescale(plane: Dataset) -> Scale | None:
    """Modality LUT of the plane; None where it is absent."""
    slope, intercept = number(plane, "RescaleSlope"), number(plane, "RescaleIntercept")
    return None if slope is None or intercept is None else Scale(slope, intercept)


def complex_image_component(plane: Dataset) -> Component | None:
    """(0008,9208), PS3.3 C.8.13.3.1.1."""
    return _COMPONENTS.get(text(plane, "ComplexImageComponent"))


def image_type_component(plane: Dataset, *positions: int) -> Component | None:
    """The first of the given values of ImageType (from 0) that is M, P, R or I."""
    image_type = words(plane, "ImageType")
    letters = [image_type[position] for position in positions if position < len(image_type)]
    return next((_LETTERS[letter] for letter in letters if letter in _LETTERS), None)


_COMPONENTS = {component.name: component for component in Component}
_LETTERS = {component.name[0]: component for component in Component}
