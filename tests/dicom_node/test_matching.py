"""Matching of C-FIND, kind by kind (PS3.4 C.2.2.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_node.matching import matches


@pytest.mark.parametrize(
    ("keyword", "wanted", "found", "fits"),
    [
        ("PatientID", "", "A1", True),
        ("PatientID", "A1", "A1", True),
        ("PatientID", "A1", "A12", False),
        ("PatientID", "A*", "A12", True),
        ("PatientID", "A?", "A12", False),
        ("PatientID", "A[12]", "A1", False),
        ("PatientID", "A[12]*", "A[12]3", True),
        ("PatientID", "a1", "A1", False),
        ("PatientName", "doe^*", "Doe^John", True),
        ("PatientName", "*", "", True),
        ("StudyDate", "20240229", "20240229", True),
        ("StudyDate", "20240201-20240301", "20240229", True),
        ("StudyDate", "-20240228", "20240229", False),
        ("StudyDate", "20240229-", "20240229", True),
        ("StudyDate", "20240101-", "", False),
        ("StudyTime", "0900-0930", "093059.5", True),
        ("StudyTime", "0900-0930", "093100", False),
        ("StudyInstanceUID", "1.2.3", "1.2.3", True),
        ("StudyInstanceUID", ["1.2.3", "1.2.4"], "1.2.4", True),
        ("StudyInstanceUID", "1.2.*", "1.2.4", False),
        ("ModalitiesInStudy", "MR", "SR\\MR", True),
        ("ModalitiesInStudy", "CT", "SR\\MR", False),
        ("InstanceNumber", "7", "7", True),
    ],
)
def test_kinds_of_matching(keyword: str, wanted: object, found: str, fits: bool) -> None:
    query = Dataset()
    setattr(query, keyword, wanted)
    assert matches(query, {keyword: found}) is fits


def test_what_is_not_known_matches_anything() -> None:
    query = Dataset()
    query.PatientComments = "x"
    assert matches(query, {"PatientID": "A"})


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("wanted", ["*a" * 30 + "*b", "*" * 2000, "*?" * 30 + "b"], ids=["many", "long", "any"])
def test_no_wild_card_keeps_the_node_busy(wanted: str) -> None:
    """Each * that can be tried at every place multiplies the work: 30 of them would take years."""
    query = Dataset()
    query.StudyDescription = wanted
    assert not matches(query, {"StudyDescription": "a" * 64})


@given(st.text(st.characters(codec="ascii", exclude_characters="*?\\", min_codepoint=33), min_size=1, max_size=20))
def test_without_wild_cards_a_value_matches_itself_alone(value: str) -> None:
    query = Dataset()
    query.StudyDescription = value
    assert matches(query, {"StudyDescription": value})
    assert not matches(query, {"StudyDescription": f"{value}x"})
    query.StudyDescription = f"*{value[1:]}*"
    assert matches(query, {"StudyDescription": f"ab{value}cd"})
