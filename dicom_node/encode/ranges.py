"""What is expected of a structure at the patient's age, from a table (`dicom_node.ranges`) that names its sources.

A position in a reference range is context for a reader and never a diagnosis.  Where the patient's age is not known,
the map has another zero than the table, or the table does not have the structure, nothing is said of it.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.encode.figures import Region
from dicom_node.ranges import Ranges
from dicom_node.regions import in_words, split

SPREAD = 1.96
"""Standard deviations on either side of the mean that hold 95 % of a normal distribution."""

AGE = re.compile(r"(\d{3})([DWMY])")
"""The value representation AS (PS3.5 6.2)."""
DAYS_PER_YEAR = 365.25
YEARS = {"D": 1 / DAYS_PER_YEAR, "W": 7 / DAYS_PER_YEAR, "M": 1 / 12, "Y": 1.0}


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
        withheld = f"the table holds for maps relative to {' or '.join(map(in_words, ranges.reference_regions))}"
    else:
        return Comparison(ranges, age, "", _expected(ranges, regions, age))
    return Comparison(ranges, age, withheld, {})


def _expected(ranges: Ranges, regions: tuple[Region, ...], age: float) -> dict[str, Expectation]:
    curves = {structure: curve for curve in ranges.curve for structure in curve.structures}
    expected = {}
    for region in regions:
        if (curve := curves.get(split(region.name)[0])) is None:
            continue
        mean = ranges.expected(curve, age)
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
