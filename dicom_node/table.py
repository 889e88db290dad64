"""Tables for terminals: columns of fixed widths, and a last one that takes the rest and wraps within itself."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NARROWEST = 20
"""Characters of the last column at least; on a terminal that is narrower still, lines are longer than it."""
GAP = "  "


@dataclass(frozen=True)
class Column:
    """width: characters, 0 for the rest of the line.  side: "<" or ">", as in a format."""

    title: str
    width: int = 0
    side: str = "<"


def printable(words: str) -> str:
    """Without what commands a terminal instead of standing on it: peers and archives choose some of the words."""
    return "".join(one if one.isprintable() else " " if one.isspace() else "�" for one in words)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Lines of at most `width` characters.  A fixed cell that is too long is cut with an ellipsis; only the last column
    wraps, and may hold several lines."""
    *fixed, last = columns
    indent = sum(column.width + len(GAP) for column in fixed)
    rest = max(NARROWEST, width - indent)
    yield (GAP.join(f"{column.title:{column.side}{column.width}}" for column in fixed) + GAP + last.title).rstrip()
    for *cells, words in rows:
        head = GAP.join(
            f"{_cut(printable(cell), column.width):{column.side}{column.width}}"
            for cell, column in zip(cells, fixed, strict=True)
        )
        parts = [
            textwrap.wrap(printable(part), rest, break_on_hyphens=False) or [""] for part in words.splitlines() or [""]
        ]
        lines = [line for part in parts for line in part]
        yield (head + GAP + lines[0]).rstrip()
        yield from (" " * indent + line for line in lines[1:])


def wrapped(words: str, width: int, indent: str = "") -> list[str]:
    """A sentence over several lines, those after the first further in.  What has no space, such as a path, is whole."""
    return textwrap.wrap(
        printable(words),
        max(NARROWEST, width),
        initial_indent=indent,
        subsequent_indent=indent + "    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"
