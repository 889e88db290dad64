"""Where settings stand: known answers, and against files that were written so that the lines are known."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dicom_node.lines import Location, line_of, lines_of

FILE = '''# a comment
[node]
ae_title = "X"

a.b.c = 1
x = """
[not]
y = 2
""" # more
[[peer]]
may = [
  "x",
  "y",
]
[peer.inner]
z = 1
[[peer]]
name = "b"
[w."b.c"]
q = {r = 1, s = [{t = 2}]}
[[a.list]]
[[a.list]]
[[a.list.sub]]
v = 1
'''


def test_known_lines() -> None:
    assert tomllib.loads(FILE)
    lines = lines_of(FILE)
    expected: dict[Location, int] = {
        ("node", "ae_title"): 3,
        ("node", "a", "b", "c"): 5,
        ("node", "x"): 6,
        ("peer", 0): 10,
        ("peer", 0, "may"): 11,
        ("peer", 0, "inner", "z"): 16,
        ("peer", 1): 17,
        ("peer", 1, "name"): 18,
        ("w", "b.c", "q", "s", 0, "t"): 20,
        ("a",): 21,
        ("a", "list", 1): 22,
        ("a", "list", 1, "sub", 0, "v"): 24,
    }
    assert {location: lines[location] for location in expected} == expected
    assert not any(part in ("not", "y") for location in lines for part in location), "what a text says is no setting"
    assert lines_of(FILE.replace("\n", "\r\n")) == lines


def test_what_is_missing_is_looked_for_in_its_table() -> None:
    lines = lines_of(FILE)
    assert line_of(("peer", 1, "port"), lines) == 18 - 1
    assert line_of(("nowhere", "port"), lines) is None
    assert line_of((), lines) is None


_NAMES = st.text('ab."\\ é[#=', min_size=1, max_size=4)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(-5, 5) | st.booleans() | st.text("a\"'\\\n[]#= ", max_size=6),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


def _written(value: Any, spread: bool) -> str:
    if isinstance(value, list):
        between = ",\n  " if spread else ", "
        return f"[{between.join(_written(entry, spread) for entry in value)}]"
    return json.dumps(value, ensure_ascii=False)


@given(
    st.lists(
        st.tuples(_NAMES, st.booleans(), st.dictionaries(_NAMES, st.tuples(_VALUES, st.booleans()), max_size=3)),
        max_size=4,
        unique_by=lambda table: table[0],
    )
)
def test_every_key_of_a_file_that_was_written_line_by_line(tables: list[tuple[str, bool, dict[str, Any]]]) -> None:
    text, expected = "", {}
    for name, is_listed, entries in tables:
        place: Location = (name, 0) if is_listed else (name,)
        expected[place] = text.count("\n") + 1
        header = json.dumps(name, ensure_ascii=False)
        text += f"[[{header}]]\n" if is_listed else f"[{header}]\n"
        for key, (value, spread) in entries.items():
            text += "\n# nothing\n"
            expected[(*place, key)] = text.count("\n") + 1
            text += f"{json.dumps(key, ensure_ascii=False)} = {_written(value, spread)}\n"
    tomllib.loads(text)
    lines = lines_of(text)
    assert {location: lines[location] for location in expected} == expected
