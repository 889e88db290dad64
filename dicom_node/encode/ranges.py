"""What is expected of a structure at the patient's age, from a table that names its sources.

A position in a reference range is context for a reader and never a diagnosis.  Where the patient's age is not known,
the map has another zero than the table, or the table does not have the structure, nothing is said of it.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydicom.dataset import Dataset

from dicom_node.encode.figures import Region
from dicom_node.errors import InvalidConfiguration
from dicom_node.regions import split

SPREAD = 1.96
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""

AGE = re.compile(r"(\d{3})([DWMY])")
"""The value representation AS (PS3.5 6.2)."""
DAYS_PER_YEAR = 365.25
YEARS = {"D": 1 / DAYS_PER_YEAR, "W": 7 / DAYS_PER_YEAR, "M": 1 / 12, "Y": 1.0}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Curve(_Table):
    """expected(age) = offset + slope·age + asymptote·(1 − exp(−rate·age)), in the table's unit; sd_ppb: of people."""

    structures: Annotated[tuple[str, ...], Field(min_length=1)]
    offset: float = 0.0
    slope: float = 0.0
    asymptote: float = 0.0
    rate: Annotated[float, Field(ge=0)] = 0.0
    sd_ppb: Annotated[float, Field(gt=0)] | None = None

    def __call__(self, age: float) -> float:
        return self.offset + self.slope * age + self.asymptote * (1 - math.exp(-self.rate * age))


class Ranges(_Table):
    """A table of reference ranges; `config/ranges` shows one with every key explained."""

    name: str
    source: str
    note: str = ""
    reference_regions: tuple[str, ...]
    ages: tuple[float, float]
    ppb_per_unit: Annotated[float, Field(gt=0)] = 1.0
    curve: Annotated[tuple[Curve, ...], Field(min_length=1)]

    def digest(self) -> str:
        """SHA-256 over every number and word of the table: objects that rest on another one are other objects."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True)
class Expectation:
    """Of one region's mean susceptibility, ppb.  low, high: of 95 % of people; None where the table has no spread."""

    mean: float
    low: float | None
    high: float | None
    position: float
    """Of the measured mean: standard deviations from the expected one, or ppb where there is no spread."""


@dataclass(frozen=True)
class Comparison:
    """A table put to one patient.  age: years, None where it is not known; withheld: why there is nothing to say."""

    ranges: Ranges
    age: float | None
    withheld: str
    expected: dict[str, Expectation]


def read_ranges(file: Path) -> Ranges:
    """Raises InvalidConfiguration with the file's faults."""
    try:
        return Ranges.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfiguration(f"{file} cannot be read: {error}") from error
    except ValidationError as error:
        faults = [f"  {'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors(include_url=False)]
        raise InvalidConfiguration("\n".join([f"{file} is no table of reference ranges:", *faults])) from error


def compare(ranges: Ranges, regions: tuple[Region, ...], reference: str, header: Dataset) -> Comparison:
    """Puts the mean of every region that the table has a curve for beside what is expected.

    reference: the name of the map's reference region.
    """
    age = age_in_years(header)
    low, high = ranges.ages
    if age is None:
        withheld = "the patient's age is not known"
    elif not low <= age <= high:
        withheld = f"the table holds for ages from {low:g} to {high:g}"
    elif reference not in ranges.reference_regions:
        withheld = f"the table holds for maps relative to {' or '.join(ranges.reference_regions)}"
    else:
        return Comparison(ranges, age, "", _expected(ranges, regions, age))
    return Comparison(ranges, age, withheld, {})


def _expected(ranges: Ranges, regions: tuple[Region, ...], age: float) -> dict[str, Expectation]:
    curves = {structure: curve for curve in ranges.curve for structure in curve.structures}
    expected = {}
    for region in regions:
        if (curve := curves.get(split(region.name)[0])) is None:
            continue
        mean = curve(age) * ranges.ppb_per_unit
        difference = region.chi.mean - mean
        if curve.sd_ppb is None:
            expected[region.name] = Expectation(mean, None, None, difference)
        else:
            spread = SPREAD * curve.sd_ppb
            expected[region.name] = Expectation(mean, mean - spread, mean + spread, difference / curve.sd_ppb)
    return expected


def age_in_years(header: Dataset) -> float | None:
    """From the dates of birth and study, which are exact, else from PatientAge; None where neither can be read."""
    born, studied = _date(header, "PatientBirthDate"), _date(header, "StudyDate")
    if born and studied and born <= studied:
        return (studied - born).days / DAYS_PER_YEAR
    found = AGE.fullmatch(str(header.get("PatientAge") or ""))
    return int(found[1]) * YEARS[found[2]] if found else None


def _date(header: Dataset, keyword: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(str(header.get(keyword) or ""), "%Y%m%d").date()
    except ValueError:
        return None
