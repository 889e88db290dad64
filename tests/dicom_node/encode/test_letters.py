from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.encode import letters
from dicom_node.encode.letters import FALLBACKS, fallbacks, font, runs

BLACK = Path(font(16).path).with_name("SourceSansPro-Black.ttf")


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without fonts, whatever this one has."""
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    for remembered in (fallbacks, letters._font_of):
        remembered.cache_clear()
    yield
    for remembered in (fallbacks, letters._font_of):
        remembered.cache_clear()


def told(words: str) -> list[str]:
    return [run.words for run in runs(words, 16, "regular")]


@pytest.mark.parametrize("words", ["Überraschend: łódź, ½ ≥ 5 ± 3 µg · − …", "Ελληνικά ΰ", "Београд, Київ", ""])
def test_the_page_has_its_own_latin_greek_and_cyrillic_letters(words: str) -> None:
    assert told(words) == ([words] if words else [])
    assert all(run.font is font(16) for run in runs(words, 16, "regular"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("Cohort 東京 2024", ["Cohort ", "[2 letters]", " 2024"]),
        ("서", ["[1 letter]"]),
        ("שלום", ["[4 letters]"]),
        ("สี", ["[2 letters]"]),
        ("u\u0308ber", ["über"]),
    ],
)
def test_what_no_font_has_is_told_and_never_a_box(words: str, shown: list[str]) -> None:
    assert told(words) == shown


def test_a_font_of_the_machine_is_found_and_writes_what_the_page_s_own_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "share" / "fonts" / "truetype" / "some"
    folder.mkdir(parents=True)
    installed = shutil.copy(BLACK, folder / FALLBACKS[1])
    shutil.copy(BLACK, folder / "unknown.ttf")
    assert fallbacks() == (installed,)
    has = letters._has
    lacking = font(16)
    monkeypatch.setattr(letters, "_has", lambda face, letter: has(face, letter) and (face, letter) != (lacking, "x"))
    found = list(runs("a xx 東", 16, "semibold"))
    assert [run.words for run in found] == ["a ", "xx", " ", "[1 letter]"]
    assert [Path(run.font.path) == installed for run in found] == [False, True, False, False]
    assert found[1].width == found[1].font.getlength("xx")
