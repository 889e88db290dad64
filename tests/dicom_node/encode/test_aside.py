"""The results of another recipe stand beside the first: nobody takes one for the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from dicom_node.encode import encode
from dicom_node.encode.aside import LARGEST, LONGEST_DESCRIPTION, STEP, first_number, is_aside, set_aside
from tests.dicom_node.encode.example import CREATED, EVERYTHING, dciodvfy_errors, maps, recipe, save, source


def a_series(number: int, description: str) -> Dataset:
    dataset = Dataset()
    dataset.SeriesNumber, dataset.SeriesDescription = number, description
    return dataset


def test_each_recipe_has_numbers_and_names_of_its_own() -> None:
    datasets = [a_series(701, "QSM (ppb)"), a_series(702, "R2* (1/s)")]
    set_aside(datasets, replace(recipe(), name="fast"), 1)
    assert [(d.SeriesNumber, d.SeriesDescription) for d in datasets] == [
        (1000701, "QSM (ppb), recipe fast"),
        (1000702, "R2* (1/s), recipe fast"),
    ]
    other = [a_series(701, "QSM (ppb)")]
    set_aside(other, recipe(), 2)
    assert other[0].SeriesNumber == 2000701


@pytest.mark.parametrize("number", [1, 701, STEP - 1, STEP, LARGEST])
@pytest.mark.parametrize("place", [1, 2147, 10**6])
def test_a_number_and_a_name_stay_what_dicom_can_hold(number: int, place: int) -> None:
    dataset = a_series(number, "x" * 60)
    set_aside([dataset], replace(recipe(), name="räum\\lich " * 9), place)
    assert 0 < dataset.SeriesNumber <= LARGEST
    assert len(dataset.SeriesDescription) <= LONGEST_DESCRIPTION
    assert dataset.SeriesDescription.isascii()
    assert "\\" not in dataset.SeriesDescription


@pytest.mark.parametrize(("number", "first"), [(701, 701), (1234501, 1234501), (None, 0)])
def test_the_number_of_a_first_result_is_found_again(number: int | None, first: int) -> None:
    dataset = a_series(701, "QSM (ppb)")
    dataset.SeriesNumber = number
    assert (first_number(dataset), is_aside(dataset)) == (first, False)
    if number == 701:
        set_aside([dataset], recipe(), 3)
        assert (first_number(dataset), is_aside(dataset)) == (701, True)


def test_every_object_is_set_aside_and_stays_valid(tmp_path: Path, dciodvfy_command: Path) -> None:
    datasets = encode(maps(), source(), recipe(), CREATED, EVERYTHING).datasets
    before = [(int(dataset.SeriesNumber), str(dataset.SeriesDescription)) for dataset in datasets]
    set_aside(datasets, recipe(), 1)
    assert [(int(d.SeriesNumber), str(d.SeriesDescription)) for d in datasets] == [
        (number + STEP, f"{text}, recipe {recipe().name}") for number, text in before
    ]
    last_of_each_class = {dataset.SOPClassUID: dataset for dataset in datasets}
    for path in save(list(last_of_each_class.values()), tmp_path):
        assert dciodvfy_errors(dciodvfy_command, path) == [], path.name
