"""docs/methods.md and docs/reliability.md are what docstrings and measured tables make of their templates."""

from __future__ import annotations

import pytest

from benchmarks.document import DOCS, PAGES, page


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_up_to_date(name: str) -> None:
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == page(name), "run `make docs`"


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_left_to_fill_in(name: str) -> None:
    assert "<!--" not in page(name)
