"""Results that stand beside others of the same images, made with another recipe: people must tell them apart in a list.

Their series numbers lie above those of any scanner, and each description says the recipe: 701 "QSM (ppb)" and 1000701
"QSM (ppb), recipe fast".
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dicom_node.encode.identity import written
from reconstruction import Recipe

STEP = 1_000_000
"""Between the series numbers of one recipe's results and the next one's."""
LARGEST = 2**31 - 1
"""IS, PS3.5 table 6.2-1."""
LONGEST_DESCRIPTION = 64
"""LO, PS3.5 table 6.2-1."""


MARK = ", recipe "
"""Before the recipe's name."""


def first_number(dataset: Dataset) -> int:
    """The series number that the dataset would have if it did not stand aside; 0 where it has none."""
    number = int(dataset.get("SeriesNumber") or 0)
    return number % STEP if is_aside(dataset) else number


def is_aside(dataset: Dataset) -> bool:
    return MARK in str(dataset.get("SeriesDescription") or "")


def set_aside(datasets: Iterable[Dataset], recipe: Recipe, place: int) -> None:
    """Renumbers and renames the series.  place: 1 for the first other recipe, 2 for the next, …"""
    for dataset in datasets:
        number = int(dataset.SeriesNumber) % STEP + place * STEP
        words = f"{dataset.SeriesDescription}{MARK}{written(recipe.name, dataset)}"[:LONGEST_DESCRIPTION]
        # New elements: the images of a series share those they have.
        dataset["SeriesDescription"] = DataElement("SeriesDescription", "LO", words)
        if number <= LARGEST:
            dataset["SeriesNumber"] = DataElement("SeriesNumber", "IS", number)
