"""United Imaging (UIH), MR Image Storage: ImageType names the component third, ComplexImageComponent besides.

EchoNumbers is empty and ImagingFrequency is in Hz (both measured on real files of other sequences).  Phase: the
smallest to the largest value that the stored bits can hold is −π…π [MEDI].  Sign: the conjugate of this project's [MEDI
alone].  Synthetic data only.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.convert.reader import (
    Scale,
    by_unit,
    complex_image_component,
    image_type_component,
    manufacturer_says,
    representable,
)
from dicom_node.errors import NotConvertible
from dicom_node.model import Component

SIGN = -1
ALTERNATING: tuple[int, ...] = ()


def reads(header: Dataset) -> bool:
    return manufacturer_says(header, "UIH", "UNITED IMAGING")


def refusal(plane: Dataset) -> str:
    return ""


def component(plane: Dataset) -> Component | None:
    return complex_image_component(plane) or image_type_component(plane, 2, 3)


def processing(plane: Dataset) -> str:
    return ""


def radian(plane: Dataset) -> tuple[Scale, ...]:
    found = by_unit(plane) or representable(plane)
    if not found:
        raise NotConvertible("United Imaging phase without BitsStored: its scale to radian is unknown")
    return found


def warnings(plane: Dataset, slices: int) -> tuple[str, ...]:
    return ()
