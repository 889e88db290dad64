"""What the match allows, figure by figure."""

from __future__ import annotations

import pytest

from reconstruction.regions._judge import of_match

BRAIN = {
    "magnitude": 0.9,
    "chi": 0.6,
    "nuclei": 0.95,
    "overlap": 0.98,
    "turn": 5.0,
    "smallest_scale": 0.95,
    "largest_scale": 1.05,
    "bend": 4.0,
}


def test_a_brain_is_believed_and_an_atlas_without_nuclei_too() -> None:
    assert of_match(BRAIN) == ""
    assert of_match({name: value for name, value in BRAIN.items() if name != "nuclei"}) == ""


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("turn", 60.0, "turned by 60"),
        ("smallest_scale", 0.6, "stretched by 0.60"),
        ("largest_scale", 1.6, "to 1.60"),
        ("bend", 14.0, "bent by 14 mm"),
        ("magnitude", 0.4, "correlate by 0.50"),
        ("overlap", 0.8, "overlap by 0.80"),
        ("nuclei", 0.64, "around them correlates by 0.64"),
    ],
)
def test_one_figure_is_enough_to_withhold(figure: str, value: float, said: str) -> None:
    assert said in of_match(BRAIN | {figure: value})
