"""docs/methods.md is what the docstrings and the measured tables make of it."""

from __future__ import annotations

from benchmarks.document import PAGE, page


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"


def test_nothing_is_left_to_fill_in() -> None:
    assert "<!--" not in page()
