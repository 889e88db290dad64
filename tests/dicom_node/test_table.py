"""Nothing is wider than the terminal, and no word is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.table import NARROWEST, Column, table, wrapped

COLUMNS = (Column("JOB", 6, ">"), Column("STATE", 10), Column("WHY"))
FIXED = 6 + 2 + 10 + 2
words = st.text(st.characters(codec="ascii", exclude_categories=("C",)), max_size=120)


@given(rows=st.lists(st.tuples(words, words, words), max_size=4), width=st.integers(FIXED + NARROWEST, 200))
def test_lines_are_no_wider_than_asked_for_and_lose_no_word_of_the_last_column(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    lines = list(table(COLUMNS, rows, width))
    assert max(map(len, lines)) <= width
    last = "".join("".join(line[FIXED:].split()) for line in lines[1:])
    assert last == "".join("".join(row[2].split()) for row in rows)


def test_nothing_commands_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07 a\x9b2J\u202eb"
    told = "".join([*table(COLUMNS, [[hostile, hostile, hostile]], 80), *wrapped(hostile, 80)])
    assert told.isprintable()
    assert "a�2J�b" in told


def test_columns_stand_under_their_titles_and_long_words_go_on_below() -> None:
    rows = [["7", "reconstructing", "one two three four five six"], ["12", "ready", "first\nsecond"]]
    assert list(table(COLUMNS, rows, 42)) == [
        "   JOB  STATE       WHY",
        "     7  reconstru…  one two three four",
        "                    five six",
        "    12  ready       first",
        "                    second",
    ]


def test_a_path_in_a_sentence_stays_whole() -> None:
    path = "/a-long/path/" + "x" * 60
    assert any(path in line for line in wrapped(f"it lies in {path} now", 40))
