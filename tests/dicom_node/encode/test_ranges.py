from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.config import config_folder
from dicom_node.encode.figures import Region, regions
from dicom_node.encode.ranges import age_in_years, compare
from dicom_node.encode.statements import ageing
from dicom_node.errors import InvalidConfiguration
from dicom_node.ranges import Curve, Ranges, read_ranges
from tests.dicom_node.encode.example import header, whole_maps

PUBLISHED = config_folder() / "ranges" / "hallgren_sourander_1958.toml"

COHORT = Ranges(
    name="a cohort",
    source="here",
    reference_regions=("csf", "lateral_ventricle"),
    ages=(20, 90),
    curve=(Curve(structures=("caudate",), offset=40, slope=0.5, sd_ppb=10),),
)


@pytest.mark.parametrize(
    ("structure", "iron"),
    [("caudate", 78.35), ("putamen", 106.77), ("globus_pallidus_internal", 203.41)],
)
def test_the_published_curves_give_the_published_iron(structure: str, iron: float) -> None:
    """mg/kg at 30 years, as others have computed it from Hallgren and Sourander's equations."""
    table = read_ranges(PUBLISHED)
    (curve,) = (curve for curve in table.curve if structure in curve.structures)
    assert curve(30) * 10 == pytest.approx(iron, abs=0.01)
    assert curve(30) < curve(60)
    assert table.ppb_per_unit == pytest.approx(0.89 * 10)


def test_expected_range_and_position() -> None:
    found = _region("left_caudate", mean=91.0)
    age = age_in_years(header())
    assert age is not None
    expectation = compare(COHORT, (found,), "csf", header()).expected["left_caudate"]
    assert expectation.mean == pytest.approx(40 + 0.5 * age)
    assert expectation.high is not None
    assert expectation.high - expectation.mean == pytest.approx(19.6)
    assert expectation.position == pytest.approx((91 - expectation.mean) / 10)


def test_without_a_spread_the_position_is_in_ppb() -> None:
    found = _region("right_putamen", mean=60.0)
    expectation = compare(read_ranges(PUBLISHED), (found,), "csf", header()).expected["right_putamen"]
    assert (expectation.low, expectation.high) == (None, None)
    assert expectation.position == pytest.approx(60 - expectation.mean)


def test_iron_post_mortem_is_not_called_what_is_expected_of_a_living_nucleus() -> None:
    assert read_ranges(PUBLISHED).mark == "iron alone"
    assert COHORT.mark == "expected"


def test_nothing_is_said_where_the_table_does_not_hold() -> None:
    found = (_region("left_caudate", mean=50.0),)
    ageless, child = header(), header()
    del ageless.PatientBirthDate
    child.PatientBirthDate = "20200101"
    for who, reference, why in (
        (ageless, "csf", "age is not known"),
        (child, "csf", "ages from 20 to 90"),
        (header(), "whole_brain", "relative to CSF or lateral ventricle"),
    ):
        comparison = compare(COHORT, found, reference, who)
        assert why in comparison.withheld
        assert comparison.expected == {}
        assert ageing(comparison) == (f"No comparison with a cohort: {comparison.withheld}.",)
    assert compare(COHORT, (_region("left_thalamus", mean=0.0),), "csf", header()).expected == {}


def test_it_is_context_and_no_diagnosis() -> None:
    said = " ".join(ageing(compare(COHORT, (_region("left_caudate", mean=91.0),), "csf", header())))
    assert "no diagnosis" in said
    assert "left caudate nucleus +1.9 SD" in said
    assert "Source of the expected values: here" in said


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientBirthDate": "19620323", "StudyDate": "20260102"}, 63.78),
        ({"PatientAge": "062Y"}, 62),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "010W"}, 70 / 365.25),
        ({"PatientAge": "062Y", "PatientBirthDate": "19620323", "StudyDate": "20260102"}, 63.78),
        ({"PatientBirthDate": "20270101", "StudyDate": "20260102"}, None),
        ({"PatientBirthDate": "1962", "StudyDate": "20260102"}, None),
        ({"PatientAge": "62"}, None),
        ({}, None),
    ],
)
def test_age(attributes: dict[str, str], years: float | None) -> None:
    dataset = Dataset()
    for keyword, value in attributes.items():
        dataset.add_new(keyword, "LO", value)  # whatever a scanner wrote
    found = age_in_years(dataset)
    assert found == (None if years is None else pytest.approx(years, abs=0.01))


def test_faults_of_a_table_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'name = "x"\nsource = "y"\nages = [0, 1]\nreference_regions = []\n[[curve]]\nsd_ppb = -1\nwhat = 2\n'
    )
    lines = r"line 4: reference_regions: .*line 5: curve\.0\.structures: .*line 6: curve\.0\.sd_ppb: .*line 7: curve"
    with pytest.raises(InvalidConfiguration, match=lines):
        read_ranges(file)
    file.write_text("name =")
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        read_ranges(file)


@pytest.mark.parametrize(
    ("replaced", "by", "fault"),
    [
        ("ages = [20, 90]", "ages = [90, 20]", r"line 3: ages: the ages go from 90 to 20; put the lower one first"),
        ("ages = [20, 90]", "ages = [20, 900]", r"line 3: ages\.1: "),
        ("offset = 40", "offset = 40e3", r"line 5: curve\.0: it makes 40010 ppb expected at 20 years"),
        ('"caudate"', '"left_caudate"', r"line 6: curve\.0\.structures: 'left_caudate' has a side"),
        ('"caudate"', '"caudate", "caudate"', r"line 6: curve\.0\.structures: 'caudate' has more than one curve"),
        ('name = "a"', 'name = " "', r"line 1: name: "),
        ("slope = 0.5", "slope = nan", r"line 8: curve\.0\.slope: "),
    ],
)
def test_a_table_that_contradicts_itself_is_refused_with_its_line(
    tmp_path: Path, replaced: str, by: str, fault: str
) -> None:
    text = (
        'name = "a"\nsource = "b"\nages = [20, 90]\nreference_regions = ["csf"]\n[[curve]]\nstructures = ["caudate"]\n'
        "offset = 40\nslope = 0.5\n"
    )
    file = tmp_path / "mine.toml"
    file.write_text(text)
    assert read_ranges(file).ages == (20, 90)
    assert replaced in text
    file.write_text(text.replace(replaced, by))
    with pytest.raises(InvalidConfiguration, match=fault):
        read_ranges(file)


def test_another_number_is_another_table() -> None:
    other = COHORT.model_copy(update={"ppb_per_unit": 1.5})
    assert other.digest() != COHORT.digest()
    assert math.isclose(COHORT.curve[0](30), 55)


def _region(name: str, mean: float) -> Region:
    template = regions(whole_maps())[0]
    return dataclasses.replace(template, name=name, chi=dataclasses.replace(template.chi, mean=mean))
