"""What a vendor's file must publish, and what vendors share.

A reader knows one vendor's way of writing phase: which objects are its own, which component a plane holds, the law
from stored value to radian, and the sign.  It sees planes (`planes.py`), so classic attributes only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydicom.dataset import Dataset

from dicom_node.convert.header import items, number, text, whole, words
from dicom_node.errors import NotConvertible
from dicom_node.model import Component


@dataclass(frozen=True)
class Scale:
    """value = slope × stored + intercept."""

    slope: float
    intercept: float


class Reader(Protocol):
    """The call shape of `siemens`, `philips`, …: modules.

    SIGN: 1 where the stored phase follows φ = φ₀ + 2π Δf TE, −1 where it is the conjugate.
    ALTERNATING: array axes (0, 1, 2) along which every second plane may carry −1 (`polarity`).
    """

    __name__: str
    SIGN: int
    ALTERNATING: tuple[int, ...]

    def reads(self, header: Dataset) -> bool:
        """Whether the object is of this vendor and kind."""

    def refusal(self, plane: Dataset) -> str:
        """What speaks against this plane in this vendor's words; "" if nothing."""

    def component(self, plane: Dataset) -> Component | None:
        """None where the header does not tell."""

    def processing(self, plane: Dataset) -> str:
        """What was done to the image besides, sorted words."""

    def radian(self, plane: Dataset) -> tuple[Scale, ...]:
        """From stored phase to radian: one law where the header tells, several candidates where it leaves it open, of
        which `the_one_that_fits` takes one.  Raises NotConvertible where nothing is known."""

    def warnings(self, plane: Dataset, slices: int) -> tuple[str, ...]:
        """What a reader of the result should know of how this vendor made the images.  slices: of the acquisition."""


def manufacturer_says(header: Dataset, *names: str) -> bool:
    manufacturer = text(header, "Manufacturer")
    return any(name in manufacturer for name in names)


def rescale(plane: Dataset) -> Scale | None:
    """Modality LUT of the plane; None where it is absent."""
    slope, intercept = number(plane, "RescaleSlope"), number(plane, "RescaleIntercept")
    return None if slope is None or intercept is None else Scale(slope, intercept)


def has_zero(plane: Dataset) -> bool:
    """Whether it is known which stored value is 0, as real and imaginary parts need."""
    signed = bool(number(plane, "PixelRepresentation"))
    is_float = number(plane, "BitsStored") is None
    return signed or is_float or rescale(plane) is not None


# Which component


def complex_image_component(plane: Dataset) -> Component | None:
    """(0008,9208), PS3.3 C.8.13.3.1.1."""
    return _COMPONENTS.get(text(plane, "ComplexImageComponent"))


def image_type_component(plane: Dataset, *positions: int) -> Component | None:
    """The first of the given values of ImageType (from 0) that names a component."""
    image_type = words(plane, "ImageType")
    found = [image_type[position] for position in positions if position < len(image_type)]
    return next((_IMAGE_TYPE_WORDS[word] for word in found if word in _IMAGE_TYPE_WORDS), None)


_COMPONENTS = {component.name: component for component in Component}
_IMAGE_TYPE_WORDS = {
    **{component.name[0]: component for component in Component},
    **_COMPONENTS,
    "PHASE MAP": Component.PHASE,
    "M_FFE": Component.MAGNITUDE,
}


# From stored values to radian

RADIAN_PER_UNIT = {"RAD": 1.0, "RADIAN": 1.0, "MRAD": 1e-3, "MILLIRADIAN": 1e-3, "DEG": math.pi / 180}
"""UCUM codes and the words that RescaleType has for them, upper case."""


def units(plane: Dataset) -> list[str]:
    """RescaleType, then the units of the Real World Value Mapping: enhanced objects say US ("unspecified") first."""
    found = [text(plane, "RescaleType")]
    for mapping in items(plane, "RealWorldValueMappingSequence"):
        found += [text(code, "CodeValue") for code in items(mapping, "MeasurementUnitsCodeSequence")]
    return [unit for unit in found if unit not in ("", "US")]


def by_unit(plane: Dataset) -> tuple[Scale, ...]:
    """The scale of a plane whose header says radian, milliradian or degrees; empty if it does not.

    A Real World Value Mapping maps stored values directly (PS3.3 C.7.6.16.2.11.1), whatever Rescale says.
    """
    for mapping in items(plane, "RealWorldValueMappingSequence"):
        slope, intercept = number(mapping, "RealWorldValueSlope"), number(mapping, "RealWorldValueIntercept")
        for code in items(mapping, "MeasurementUnitsCodeSequence"):
            per_unit = RADIAN_PER_UNIT.get(text(code, "CodeValue"))
            if per_unit and slope is not None and intercept is not None:
                return (Scale(slope * per_unit, intercept * per_unit),)
    per_unit, found = RADIAN_PER_UNIT.get(text(plane, "RescaleType")), rescale(plane)
    return (Scale(found.slope * per_unit, found.intercept * per_unit),) if per_unit and found else ()


def half_turns(plane: Dataset, *half: float) -> tuple[Scale, ...]:
    """Candidates: π stands at each of the given values after Rescale."""
    found = rescale(plane) or Scale(1, 0)
    return tuple(Scale(found.slope * math.pi / h, found.intercept * math.pi / h) for h in half)


def representable(plane: Dataset) -> tuple[Scale, ...]:
    """The smallest value that the stored bits can hold is −π, the largest π; empty where the bits are not told."""
    bits = whole(plane, "BitsStored")
    if bits is None or not 1 < bits <= _MOST_BITS:
        return ()
    lowest = -(1 << bits - 1) if number(plane, "PixelRepresentation") else 0
    slope = 2 * math.pi / ((1 << bits) - 1)
    return (Scale(slope, -math.pi - slope * lowest),)


_MOST_BITS = 16
"""Phase is never stored finer; 32 bits are an intermediate of something else."""

REACH = 0.95
"""Share of half a turn that stored phase must reach at both ends to tell its scale: the noise around a head does."""
_BEYOND = 1.01
"""Share of half a turn that no phase exceeds."""


def the_one_that_fits(candidates: Sequence[Scale], lowest: float, highest: float) -> Scale:
    """The candidate under which the stored range spans one turn and no more.

    The range only decides between laws that vendors have; phase is never stretched to it.  Raises NotConvertible where
    no candidate fits, as for phase without noise or wraps.
    """
    fitting = []
    for scale in candidates:
        ends = sorted((scale.slope * lowest + scale.intercept, scale.slope * highest + scale.intercept))
        reach = min(-ends[0], ends[1]) / math.pi
        if reach >= REACH and max(-ends[0], ends[1]) <= _BEYOND * math.pi:
            fitting.append((abs(1 - reach), scale))
    if not fitting:
        expected = ", ".join(f"{_stored(scale, -math.pi):.6g}…{_stored(scale, math.pi):.6g}" for scale in candidates)
        raise NotConvertible(
            f"the scale of phase is not in the header, and its stored values run from {lowest:g} to {highest:g}; "
            f"expected one of {expected or '(none known)'}. Configure it for this scanner, or send images with Rescale"
        )
    return min(fitting, key=lambda found: found[0])[1]


def _stored(scale: Scale, radian: float) -> float:
    return (radian - scale.intercept) / scale.slope if scale.slope else math.nan


def interpolated_phase(correction: str) -> str:
    """The warning about phase that a distortion correction went over.  correction: as the vendor calls it."""
    return (
        f"phase was interpolated by distortion correction ({correction}): near its jumps from π to −π it is wrong; "
        "send the uncorrected images"
    )
