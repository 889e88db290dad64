"""What a site knows better than the header: the sign and the scale of one scanner's phase."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.convert.header import MALFORMED, values
from dicom_node.convert.reader import Scale, rescale
from dicom_node.errors import NotConvertible
from dicom_node.model import Group

Sign = Literal["auto", "keep", "flip"]


@dataclass(frozen=True)
class Override:
    """Of one scanner.

    sign: "keep" takes the phase as it is stored, "flip" its conjugate, "auto" what the encoding says.
    half_turn: the value, after Rescale, that is π away from `zero`; None: what the encoding says.
    zero: the value, after Rescale, that is 0 radian.
    Raises ValueError for values that can mean nothing.
    """

    sign: Sign = "auto"
    half_turn: float | None = None
    zero: float = 0.0

    def __post_init__(self) -> None:
        if self.sign not in get_args(Sign):
            raise ValueError(f"sign is {self.sign!r}; expected one of {', '.join(get_args(Sign))}")
        if self.half_turn is not None and not 0 < self.half_turn < math.inf:
            raise ValueError(f"half_turn is {self.half_turn}; expected the positive value that means π")
        if not math.isfinite(self.zero):
            raise ValueError(f"zero is {self.zero}; expected the value that means 0 radian")

    def applied(self) -> dict[str, str | float]:
        """What is not left to the encoding, as plain data: with it the same images make another result."""
        sign: dict[str, str | float] = {} if self.sign == "auto" else {"sign": self.sign}
        scale = {} if self.half_turn is None else {"half_turn": float(self.half_turn), "zero": float(self.zero)}
        return sign | scale

    def scale(self, plane: Dataset) -> Scale | None:
        """From stored phase to radian; None where it is left to the encoding."""
        if self.half_turn is None:
            return None
        found = rescale(plane) or Scale(1, 0)
        return Scale(found.slope * math.pi / self.half_turn, (found.intercept - self.zero) * math.pi / self.half_turn)


@dataclass(frozen=True)
class Scanner:
    """Who made the images: StationName and DeviceSerialNumber as written, "" where absent."""

    station_name: str
    serial_number: str


def scanner_of(group: Group) -> Scanner:
    """The scanner that the images of a group name.  Raises NotConvertible where its first file cannot be read."""
    path = group.instances[0].path
    try:
        header = dcmread(path, stop_before_pixels=True, force=True, specific_tags=["StationName", "DeviceSerialNumber"])
    except MALFORMED as error:
        raise NotConvertible(f"{path.name} cannot be read any more: {error}") from error
    return Scanner(_first(header, "StationName"), _first(header, "DeviceSerialNumber"))


def _first(header: Dataset, keyword: str) -> str:
    return next((str(value).strip() for value in values(header, keyword)), "")
