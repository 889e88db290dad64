"""What is told of a failure that nobody foresaw: its type and its place, and its own words only where they are ours.

A library quotes the value at which it failed, and a value may be a name; a log, a page and a mail leave the hospital
more easily than an image.
"""

from __future__ import annotations

import sqlite3
import traceback
from contextlib import suppress
from types import TracebackType

from dicom_node.errors import NodeError

OURS = ("dicom_node", "reconstruction")
_PLACE = "_place"


class NotPortable(NodeError):
    """An exception that cannot go to another process, in words."""


def words(error: BaseException) -> str:
    """For a reason."""
    if _quotes_nobody(error):
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__} at {place(error)}; the log tells the way there"


def place(error: BaseException) -> str:
    """The innermost line of ours, or else of all, as module:line."""
    if known := getattr(error, _PLACE, ""):
        return str(known)
    ours = innermost = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        innermost = f"{frame.f_globals.get('__name__', '?')}:{line}"
        if innermost.partition(".")[0] in OURS:
            ours = innermost
    return ours or innermost or "an unknown place"


def keep_place(error: BaseException) -> None:
    """For one that goes to another process, where its traceback does not: place and way go along."""
    error.add_note(trace(error))
    with suppress(AttributeError):  # a class may have no room for it
        setattr(error, _PLACE, place(error))


def trace(error: BaseException) -> str:
    """The traceback of it and of what led to it, for the log: lines of code, and no values."""
    parts: list[str] = []
    one: BaseException | None = error
    seen = set[int]()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        said = str(one) if _quotes_nobody(one) else "(its words are withheld)"
        notes = "".join(f"\n{note}" for note in getattr(one, "__notes__", ()) if note.startswith(_HEAD))
        parts.append(f"{_HEAD}\n{_frames(one.__traceback__)}{type(one).__qualname__}: {said}{notes}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n\nwhich led to\n\n".join(reversed(parts))


_HEAD = "Traceback (most recent call last):"


def _frames(found: TracebackType | None) -> str:
    return "".join(traceback.format_tb(found))


def _quotes_nobody(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno is not None  # pydicom's own have none
    return isinstance(error, (MemoryError, sqlite3.Error)) or type(error).__module__.partition(".")[0] in OURS
