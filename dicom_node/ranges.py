"""Tables of reference ranges: what age makes one expect of a structure.  `config/ranges` holds one, explained.

They are read with the configuration, before any work, and so this loads nothing of the physics; `encode.ranges` puts a
table to a patient.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from dicom_node.errors import InvalidConfiguration
from dicom_node.lines import Location, line_of, lines_of
from dicom_node.regions import split

LARGEST_PPB = 5000.0
"""Beyond what any brain shows: a table that expects more is in another unit than it says."""

OLDEST = 150.0

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Spread = Annotated[float, Field(gt=0, le=LARGEST_PPB)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Curve(_Table):
    """expected(age) = offset + slope·age + asymptote·(1 − exp(−rate·age)), in the table's unit; sd_ppb: of people."""

    structures: Annotated[tuple[Text, ...], Field(min_length=1)]
    offset: float = 0.0
    slope: float = 0.0
    asymptote: float = 0.0
    rate: Annotated[float, Field(ge=0)] = 0.0
    sd_ppb: Spread | None = None

    def __call__(self, age: float) -> float:
        return self.offset + self.slope * age + self.asymptote * (1 - math.exp(-self.rate * age))


class Ranges(_Table):
    """name, source, note: for readers.  mark: what its value is called beside a measured one.

    reference_regions: of the maps that it holds for.  ages: years, from and to.
    """

    name: Text
    source: Text
    note: str = ""
    mark: Text = "expected"
    reference_regions: Annotated[tuple[Text, ...], Field(min_length=1)]
    ages: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(le=OLDEST)]]
    ppb_per_unit: Annotated[float, Field(gt=0)] = 1.0
    curve: Annotated[tuple[Curve, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Ranges:
        if found := self._contradictions():
            raise PydanticCustomError(_CONTRADICTION, "{words}", {"words": "", "found": found})
        return self

    def expected(self, curve: Curve, age: float) -> float:
        """Ppb.  age: years."""
        return curve(age) * self.ppb_per_unit

    def digest(self) -> str:
        """SHA-256 over every number and word of the table: objects that rest on another one are other objects."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def _contradictions(self) -> list[tuple[Location, str]]:
        if self.ages[0] > self.ages[1]:
            return [(("ages",), f"the ages go from {self.ages[0]:g} to {self.ages[1]:g}; put the lower one first")]
        found: list[tuple[Location, str]] = []
        seen = set()
        for place, curve in enumerate(self.curve):
            where = ("curve", place, "structures")
            for structure in curve.structures:
                plain, side = split(structure)
                if side:
                    found.append((where, f"{structure!r} has a side; a curve is of both, write {plain!r}"))
                if structure in seen:
                    found.append((where, f"{structure!r} has more than one curve; keep one"))
                seen.add(structure)
            for age in self.ages:
                if not abs(ppb := self.expected(curve, age)) <= LARGEST_PPB:
                    found.append(
                        (
                            ("curve", place),
                            f"it makes {ppb:g} ppb expected at {age:g} years, and no brain has more than "
                            f"{LARGEST_PPB:g}; check its numbers, and ppb_per_unit",
                        )
                    )
                    break
        return found


_CONTRADICTION = "contradiction"


def read_ranges(file: Path) -> Ranges:
    """Raises InvalidConfiguration with every fault of the file and the line it stands in."""
    try:
        text = file.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # of UTF-8, of TOML, or of a number too long for Python
        raise InvalidConfiguration(f"{file} cannot be read as a table of reference ranges: {error}") from error
    try:
        return Ranges.model_validate(content)
    except ValidationError as error:
        lines = lines_of(text)
        faults = [fault for detail in error.errors(include_url=False) for fault in _faults(detail)]
        told = sorted((line_of(location, lines) or 0, words) for location, words in faults)
        raise InvalidConfiguration(
            f"{file} is no table of reference ranges: "
            + "; ".join(f"line {line}: {words}" if line else words for line, words in told)
            + "; compare it with config/ranges/hallgren_sourander_1958.toml"
        ) from error


def _faults(detail: Any) -> list[tuple[Location, str]]:
    location = detail["loc"]
    if detail["type"] == _CONTRADICTION:
        return [(where, f"{'.'.join(map(str, where))}: {words}") for where, words in detail["ctx"]["found"]]
    return [(location, f"{'.'.join(map(str, location))}: {detail['msg']}")]
