"""Reads header elements as they come from the field: absent, empty, of the wrong VR, or not parsable at all.

pydicom converts an element when it is first touched, and a malformed one raises then.  Everything here answers "absent"
for such an element, so that what the header cannot say is decided in one place: by whoever asked for it.
"""

from __future__ import annotations

import math
import struct
from functools import cache, lru_cache

from pydicom import config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
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


_ALIKE = frozenset({"AS", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "SL", "SS", "TM", "UI", "UL", "US"})
"""Value representations whose bytes mean the same in every object, whatever its character set; names are not of them.
"""
_ALIKE_IN_ASCII = frozenset({"LO", "SH"})
"""The same where the bytes are ASCII and switch to no other set."""
_ESCAPE = b"\x1b"

_SHORT = 256
"""Bytes.  What is longer is not the same in many objects."""


@lru_cache(maxsize=1 << 14)
def tag_of(number: int) -> BaseTag:
    """One object for each tag: dictionaries compare by Python code what is equal but not the same."""
    return BaseTag(number)


@cache
def tag(keyword: str) -> BaseTag:
    """pydicom looks keywords up anew each time, which took a third of the time of reading a header."""
    return tag_of(int(Tag(keyword)))


def values(header: Dataset, keyword: str) -> tuple[object, ...]:
    """The values of an element; empty if it is absent, empty or malformed."""
    try:
        element = header.get_item(tag(keyword))
        if element is None:
            return ()
        if isinstance(element, RawDataElement) and _is_alike(element):
            which, vr, _, value, _, implicit, little, *_ = element
            return _values(which, vr, value or b"", implicit, little)
        return _as_tuple(header[tag(keyword)].value)
    except MALFORMED:
        return ()


def element_of(header: Dataset, which: BaseTag) -> DataElement:
    """An element that other headers may share: it must be copied before it is changed.  Raises one of MALFORMED."""
    element = header.get_item(which)
    if isinstance(element, RawDataElement) and _is_alike(element):
        which, vr, _, value, _, implicit, little, *_ = element
        return _parsed(which, vr, value or b"", implicit, little)
    return header[which]


def _is_alike(element: RawDataElement) -> bool:
    value = element.value
    if value is None or len(value) > _SHORT:
        return False
    vr = element.VR
    if element.is_implicit_VR:
        vr = dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else None
    return vr in _ALIKE or (vr in _ALIKE_IN_ASCII and value.isascii() and _ESCAPE not in value)


@lru_cache(maxsize=1 << 14)
def _values(which: BaseTag, vr: str | None, value: bytes, implicit: bool, little: bool) -> tuple[object, ...]:
    """The files of a series say the same a thousand times, and it takes pydicom long to understand it."""
    return _as_tuple(_parsed.__wrapped__(which, vr, value, implicit, little).value)


@lru_cache(maxsize=1 << 12)
def _parsed(which: BaseTag, vr: str | None, value: bytes, implicit: bool, little: bool) -> DataElement:
    return convert_raw_data_element(RawDataElement(which, vr, len(value), value, 0, implicit, little))


def _as_tuple(value: object) -> tuple[object, ...]:
    if value is None or value == "" or isinstance(value, Sequence):
        return ()
    return tuple(value) if isinstance(value, MultiValue | list | tuple) else (value,)


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
        value = header[tag(keyword)].value
        return tuple(value) if isinstance(value, Sequence) else ()
    except MALFORMED:
        return ()


def private(header: Dataset, group: int, creator: str, element: int) -> str:
    """A private element as text, at whatever block its creator has reserved; "" if there is none.

    element: the two lower digits of its number.  Of several values the first.
    """
    if all(known >> 16 != group for known in tuple(header.keys())):  # far quicker than to look for the block
        return ""
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
