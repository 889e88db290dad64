"""What of an archive is worth fetching, given what it tells at image level."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from dicom_node.seek import UNTOLD, judge


def told(count: int = 4, echoes: Sequence[float] = (), **keys: object) -> list[Dataset]:
    """What an archive answers for a series: `count` images of each echo."""
    images = []
    for echo in echoes or [None]:
        for _ in range(count):
            image = Dataset()
            image.SOPClassUID = MRImageStorage
            if echo is not None:
                image.EchoTime = echo
            for keyword, value in keys.items():
                setattr(image, keyword, value)
            images.append(image)
    return images


def alone(images: list[Dataset]) -> str:
    return judge({"a": images})["a"]


def test_several_echoes_in_one_series_are_worth_it() -> None:
    assert alone(told(echoes=(4, 8))) == ""
    assert alone(told(echoes=(4, 8), ScanningSequence="GR", ImageType=["ORIGINAL", "PRIMARY", "P"])) == ""
    assert alone(told(echoes=(4, 8), ScanningSequence="RM")) == "", "Philips and GE write it"


def test_echoes_in_series_of_their_own_are_worth_it_together() -> None:
    assert judge({"a": told(echoes=(4,)), "b": told(echoes=(8,))}) == {"a": "", "b": ""}
    assert judge({"a": told(echoes=(4,)), "b": told(count=9, echoes=(8,))}) == {
        "a": "one echo, 4.0 ms",
        "b": "one echo, 8.0 ms",
    }, "not of the same size"
    assert judge({"a": told(echoes=(4,)), "b": told(echoes=(8,), ScanningSequence="SE")})["a"] == "one echo, 4.0 ms"


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (told(echoes=(4,)), "one echo, 4.0 ms"),
        (told(count=1, echoes=(4, 8)), "2 images"),
        (told(echoes=(4, 8), ImageType=["DERIVED", "PRIMARY"]), "derived or localiser"),
        (told(echoes=(4, 8), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "derived or localiser"),
        (told(echoes=(4, 8), ScanningSequence="SE"), "its scanning sequence is SE"),
        (told(echoes=(4, 8), ScanningSequence=["SE", "IR"]), "its scanning sequence is SE/IR"),
        (told(echoes=(4, 8), ScanningSequence=["EP", "GR"]), "echo-planar"),
        (told(), UNTOLD),
        ([], "0 images"),
    ],
)
def test_what_speaks_against_a_series_is_told(images: list[Dataset], why: str) -> None:
    assert alone(images) == why


def test_an_enhanced_object_hides_its_echoes_and_is_fetched() -> None:
    assert alone(told(count=1, SOPClassUID=EnhancedMRImageStorage)) == ""
    assert alone(told(count=1, SOPClassUID=EnhancedMRImageStorage, EchoPulseSequence="GRADIENT")) == ""
    assert alone(told(count=1, SOPClassUID=EnhancedMRImageStorage, EchoPulseSequence="SPIN")) == "its echoes are SPIN"
