"""Every test that docs/reliability.md names is there, and every proof is on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.document import ROOT, page

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
ON_THE_PAGE = sorted(set(NAMED.findall(page("reliability"))))
"""File and name of each test."""


def test_the_page_names_tests() -> None:
    assert len(ON_THE_PAGE) > 40
    assert page("reliability").count("tests/") - page("reliability").count("`tests/proof`") >= len(ON_THE_PAGE)


@pytest.mark.parametrize("file", sorted({file for file, _ in ON_THE_PAGE}))
def test_a_test_that_is_named_is_there(file: str) -> None:
    named = {name for where, name in ON_THE_PAGE if where == file}
    assert named <= set(_tests(ROOT / file)), f"{file} has no longer what the page names"


def test_every_proof_is_on_the_page() -> None:
    proofs = {
        (str(file.relative_to(ROOT)), name)
        for file in Path(__file__).parent.glob("test_*.py")
        if file != Path(__file__)
        for name in _tests(file)
    }
    assert proofs <= set(ON_THE_PAGE)


def _tests(file: Path) -> list[str]:
    return re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
