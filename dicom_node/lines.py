"""Where a setting stands in its file: tomllib reads TOML and forgets the lines.

No second parser: a statement of TOML (a header, or a key with its value) is valid TOML by itself and ends with a line,
so the lines of a valid file are handed to tomllib until it has understood one statement, and then the next.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

Location = tuple[int | str, ...]
"""The way to a value through tables and lists, such as ("peer", 0, "port")."""


def lines_of(text: str) -> dict[Location, int]:
    """The line, from 1, on which each table and each key begins.  text: valid TOML."""
    found: dict[Location, int] = {}
    tables: Counter[Location] = Counter()
    """How many there are of each [[table]] so far."""
    table: Location = ()
    for line, statement, content in _statements(text):
        if statement.startswith("["):
            is_listed = statement.startswith("[[")
            table = ()
            for depth, part in enumerate(way := _way(content)):
                table = (*table, part)
                if is_listed and depth == len(way) - 1:
                    tables[table] += 1
                if tables[table]:
                    table = (*table, tables[table] - 1)
            locations = [table[:end] for end in range(1, len(table) + 1)]
        else:
            locations = [(*table, *location) for location in _within(content)]
        for location in locations:
            found.setdefault(location, line)
    return found


def line_of(location: Location, lines: Mapping[Location, int]) -> int | None:
    """The line of a value; of what it should stand in, where it is not there.  None for what is not in the file."""
    return next((lines[part] for end in range(len(location), 0, -1) if (part := location[:end]) in lines), None)


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement with its first line and what it says."""
    begun, first = "", 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not begun:
            first = number
        begun += line + "\n"
        try:
            content = tomllib.loads(begun)
        except tomllib.TOMLDecodeError:  # it goes on in the next line
            continue
        if content:
            yield first, begun.lstrip(), content
        begun = ""


def _way(header: Any) -> list[str]:
    """The parts of the one name in a header."""
    way = []
    while header:
        if isinstance(header, list):
            (header,) = header
            continue
        ((part, header),) = header.items()
        way.append(part)
    return way


def _within(value: Any) -> Iterator[Location]:
    """The ways to all that a value holds, itself not among them."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, content in inner:
        yield (part,)
        yield from ((part, *rest) for rest in _within(content))
