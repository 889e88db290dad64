"""The skeleton of an encoded data set: which elements it has, where they lie, and whether it ends where it says.

pydicom reads leniently: a value that is cut off comes back short and without a word.  A node that acknowledges must
not, so this walks the lengths of PS3.5 7.1 to the last byte.  It decodes no value and copies nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from dicom_node.errors import UnreadableObject

PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_DELIMITER, _SEQUENCE_DELIMITER = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_FIRST_DATA_SET_GROUP = 0x0004  # below lie commands (0000) and File Meta (0002)
_DEEPEST_NESTING = 64  # far beyond any information object; stops a recursion bomb
_MOST_ITEMS = 2**19
"""Of all sequences together.  20,000 frames have about 400,000; pydicom makes 1.3 kB of an item that takes 8 bytes."""
_MOST_FRAGMENTS = 2**20
_LARGEST_HEADER = 2**26
"""Bytes of all but Pixel Data.  10,000 frames take about 30 MB; pydicom makes 260 bytes of an element that takes 8."""
_VRS = {str(vr).encode("ascii"): str(vr) for vr in STANDARD_VR if len(vr) == 2}
_LONG_VRS = frozenset(str(vr) for vr in EXPLICIT_VR_LENGTH_32)

Encoded = bytes | mmap | memoryview
"""A data set in its transfer syntax; mapped from a file where it came as one."""


class Element(NamedTuple):
    """vr: None in implicit VR.  start: offset of the value.  length: of the value in bytes, None where it is undefined.

    items: of an undefined-length sequence, or the fragments of encapsulated Pixel Data without the offset table.
    """

    vr: str | None
    start: int
    length: int | None
    items: int = 0


class Skeleton:
    """The top-level elements of a data set.  Raises UnreadableObject, naming the offset, when it is malformed.

    implicit, little_endian: of the transfer syntax.  encapsulated: whether Pixel Data must be.
    """

    def __init__(self, encoded: Encoded, *, implicit: bool, little_endian: bool, encapsulated: bool) -> None:
        self.elements: dict[int, Element] = {}
        self._bytes = encoded
        self._encapsulated = encapsulated
        self._implicit = implicit
        order = "<" if little_endian else ">"
        self._tag = struct.Struct(f"{order}HH")
        self._long = struct.Struct(f"{order}L")
        self._implicit_header = struct.Struct(f"{order}HHL")  # PS3.5 7.1.3
        self._short_header = struct.Struct(f"{order}HH2sH")  # PS3.5 7.1.2
        self._item_tag = re.compile(re.escape(self._tag.pack(_ITEM >> 16, _ITEM & 0xFFFF)))
        self._walked = self._pixel_bytes = 0
        position = items = 0
        while position < len(encoded):
            tag, element, position = self._element(position, len(encoded), implicit, depth=0)
            if tag >> 16 < _FIRST_DATA_SET_GROUP or tag >> 16 == _ITEM >> 16:
                raise UnreadableObject(f"element {_text(tag)} has no place in a data set")
            if tag in self.elements:
                raise UnreadableObject(f"element {_text(tag)} occurs twice")
            self.elements[tag] = element
            if tag == PIXEL_DATA:
                self._pixel_bytes = position - element.start
            elif element.vr in (None, "SQ", "UN"):
                items += sum(1 for _ in self._item_tag.finditer(encoded, element.start, position))  # at any depth
                self._require_few(items)

    def count_items(self, tag: int) -> int:
        """Number of items of a top-level sequence, all of them walked to their ends."""
        element = self.elements[tag]
        if element.length is None:
            return element.items
        position, end, items = element.start, element.start + element.length, 0
        while position < end:
            position = self._item(position, end, self._implicit or element.vr == "UN", depth=1)
            items += 1
        return items

    def fragments(self, longest: int) -> Iterator[bytes]:
        """The first `longest` bytes of each fragment of encapsulated Pixel Data, without the offset table."""
        position = self.elements[PIXEL_DATA].start
        for number in range(self.elements[PIXEL_DATA].items + 1):
            length = self._read_long(position + 4, len(self._bytes))
            position += 8
            if number:
                yield bytes(self._bytes[position : position + min(length, longest)])
            position += length

    def _element(self, position: int, end: int, implicit: bool, depth: int) -> tuple[int, Element, int]:
        """Tag, element and the position behind it."""
        if position - self._pixel_bytes > _LARGEST_HEADER:
            raise UnreadableObject(f"the data set has more than {_LARGEST_HEADER} bytes besides its Pixel Data")
        tag, vr, length, start = self._header(position, end, implicit, depth)
        if length != _UNDEFINED:
            if length > end - start:
                raise UnreadableObject(
                    f"element {_text(tag)} at offset {position} claims {length} of {end - start} bytes left: truncated"
                )
            if tag == PIXEL_DATA and depth == 0 and self._encapsulated:
                raise UnreadableObject("Pixel Data is not encapsulated, as its transfer syntax requires")
            return tag, Element(vr, start, length), start + length
        if tag == PIXEL_DATA and depth == 0:
            if not self._encapsulated:
                raise UnreadableObject("Pixel Data has undefined length in a transfer syntax that does not compress")
            fragments, behind = self._fragments(start, end)
            return tag, Element(vr, start, None, fragments), behind
        if vr not in (None, "SQ", "UN"):
            raise UnreadableObject(f"element {_text(tag)} at offset {position} has undefined length with VR {vr}")
        # An undefined-length UN holds implicit VR items (PS3.5 6.2.2).
        items, behind = self._sequence(start, end, implicit or vr == "UN", depth + 1)
        return tag, Element(vr, start, None, items), behind

    def _header(self, position: int, end: int, implicit: bool, depth: int) -> tuple[int, str | None, int, int]:
        """Tag, VR, length and the start of the value."""
        if position + 8 > end:
            raise self._cut_off(end)
        if implicit:
            group, number, length = self._implicit_header.unpack_from(self._bytes, position)
            return group << 16 | number, None, length, position + 8
        group, number, code, length = self._short_header.unpack_from(self._bytes, position)
        tag, vr = group << 16 | number, _VRS.get(code)
        if vr is None:
            if depth > 0 and not code.isalpha():
                # Some writers switch to implicit VR inside sequences; every reader tolerates it.
                return tag, None, self._read_long(position + 4, end), position + 8
            raise UnreadableObject(f"element {_text(tag)} at offset {position} has no VR of DICOM: {code!r}")
        if vr in _LONG_VRS:
            return tag, vr, self._read_long(position + 8, end), position + 12
        return tag, vr, length, position + 8

    def _sequence(self, position: int, end: int, implicit: bool, depth: int) -> tuple[int, int]:
        """Number of items and the position behind the delimiter."""
        if depth > _DEEPEST_NESTING:
            raise UnreadableObject(f"sequences are nested deeper than {_DEEPEST_NESTING}")
        items = 0
        while self._read_tag(position, end) != _SEQUENCE_DELIMITER:
            position = self._item(position, end, implicit, depth)
            items += 1
            self._walked += 1
            self._require_few(self._walked)
        self._read_long(position + 4, end)
        return items, position + 8

    def _item(self, position: int, end: int, implicit: bool, depth: int) -> int:
        """The position behind an item of a sequence."""
        tag, length = self._read_tag(position, end), self._read_long(position + 4, end)
        position += 8
        if tag != _ITEM:
            raise UnreadableObject(f"found {_text(tag)} at offset {position - 8}, expected an item of a sequence")
        if length != _UNDEFINED:
            if length > end - position:
                raise self._cut_off(end)
            return position + length
        while self._read_tag(position, end) != _ITEM_DELIMITER:
            _, _, position = self._element(position, end, implicit, depth)
        self._read_long(position + 4, end)
        return position + 8

    def _fragments(self, position: int, end: int) -> tuple[int, int]:
        """Number of fragments behind the Basic Offset Table (PS3.5 A.4), and the position behind the delimiter."""
        items = 0
        while True:
            tag, length = self._read_tag(position, end), self._read_long(position + 4, end)
            position += 8
            if tag == _SEQUENCE_DELIMITER:
                return max(items - 1, 0), position
            if tag != _ITEM or length == _UNDEFINED:
                raise UnreadableObject(f"{_text(tag)} at offset {position - 8} is no fragment of Pixel Data")
            if items > _MOST_FRAGMENTS:
                raise UnreadableObject(f"Pixel Data has more than {_MOST_FRAGMENTS} fragments")
            if length > end - position:
                raise UnreadableObject(
                    f"a fragment of Pixel Data claims {length} of {end - position} bytes left: truncated"
                )
            items, position = items + 1, position + length

    def _require_few(self, items: int) -> None:
        if items > _MOST_ITEMS:
            raise UnreadableObject(f"the data set has more than {_MOST_ITEMS} items of sequences")

    def _read_tag(self, position: int, end: int) -> int:
        if position + 4 > end:
            raise self._cut_off(end)
        group, element = self._tag.unpack_from(self._bytes, position)
        return int(group << 16 | element)

    def _read_long(self, position: int, end: int) -> int:
        if position + 4 > end:
            raise self._cut_off(end)
        return int(self._long.unpack_from(self._bytes, position)[0])

    def _cut_off(self, end: int) -> UnreadableObject:
        return UnreadableObject(f"the data set ends at byte {end} in the middle of an element: truncated")


def _text(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
