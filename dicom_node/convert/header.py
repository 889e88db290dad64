"""Reads header elements as they come from the field: absent, empty, of the wrong VR, or not parsable at all.

pydicom converts an element when it is first touched, and a malformed one raises then.  Everything here answers "absent"
for such an element, so that what the header cannot say is decided in one place: by whoever asked for it.
"""

from __future__ import annotations

import math
import struct
from functools import cache

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag

config.settings.reading_validation_mode = config.IGNORE
# What a header holds is judged here; pydicom's warnings would quote patient names in the log.

MALFORMED = (
    ArithmeticError,  # decimal.InvalidOperation of a DS or IS
    AttributeError,
    EOFError,
    LookupError,  # unknown codec
    NotImplementedError,  # pydicom: unknown VR
    OSError,  # pydicom: a sequence that ends within an item
    RecursionError,  # sequences nested beyond reason
    TypeError,
    ValueError,  # UnicodeDecodeError among them
    BytesLengthException,
    struct.error,
)
"""What touching a malformed element may raise."""


@cache
def _tag(keyword: str) -> BaseTag:
    """pydicom looks keywords up anew each time, which took a third of the time of reading a header."""
    return Tag(keyword)


def values(header: Dataset, keyword: str) -> tuple[object, ...]:
    """The values of an element; empty if it is absent, empty or malformed."""
    try:
        value = header[_tag(keyword)].value
        if value is None or value == "" or isinstance(value, Sequence):
            return ()
        return tuple(value) if isinstance(value, MultiValue | list | tuple) else (value,)
    except MALFORMED:
        return ()


def text(header: Dataset, keyword: str) -> str:
    """The element as one line, "" if absent; the values of a multi-valued one joined by a backslash."""
    return "\\".join(words(header, keyword))


def words(header: Dataset, keyword: str) -> tuple[str, ...]:
    """The values as upper-case code strings, outer blanks removed (UIDs and numbers are not changed by that)."""
    try:
        return tuple(str(value).strip(" \0").upper() for value in values(header, keyword))
    except MALFORMED:
        return ()


def numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly `count` finite numbers, or None."""
    try:
        found = tuple(float(str(value)) for value in values(header, keyword))
    except MALFORMED:
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def number(header: Dataset, keyword: str) -> float | None:
    """One finite number, or None."""
    found = numbers(header, keyword, 1)
    return found[0] if found else None


def whole(header: Dataset, keyword: str) -> int | None:
    """One whole number, or None."""
    found = number(header, keyword)
    return int(found) if found is not None and found == int(found) else None


def items(header: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """The items of a sequence; empty if it is absent or malformed."""
    try:
        value = header[_tag(keyword)].value
        return tuple(value) if isinstance(value, Sequence) else ()
    except MALFORMED:
        return ()


def private(header: Dataset, group: int, creator: str, element: int) -> str:
    """A private element as text, at whatever block its creator has reserved; "" if there is none.

    element: the two lower digits of its number.  Of several values the first.
    """
    try:
        value = header.private_block(group, creator)[element].value
    except MALFORMED:
        return ""
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if value else ""
    if isinstance(value, bytes):
        # VR UN is little endian always (PS3.5 6.2.2): a short or long number, or text
        if len(value) in (2, 4):
            return str(int.from_bytes(value, "little", signed=True))
        value = value.decode("ascii", "replace")
    return "" if value is None else str(value).strip(" \0")
