"""Stored files as datasets: the usual ones in one walk over their elements, all others by pydicom.

A study has thousands of files, and pydicom asks a file three times for each of their elements.  A file that is walked
here has a preamble, a transfer syntax in little endian, and elements that end within what was read; what comes back is
then what dcmread gives.  Whatever is otherwise, odd or damaged, is left to pydicom.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, MutableSequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import DataElement, RawDataElement, empty_value_for_VR
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.filereader import data_element_generator
from pydicom.tag import BaseTag
from pydicom.uid import AllTransferSyntaxes
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR
from pydicom.values import convert_string

from dicom_node.convert.header import MALFORMED, tag, tag_of

_PREAMBLE, _PREFIX = 128, b"DICM"
_UNDEFINED = 0xFFFFFFFF
_LONGEST_START = 12
"""Bytes of an element before its value (PS3.5 7.1.2)."""
_COMMANDS, _META, _DELIMITERS = 0x0000, 0x0002, 0xFFFE
"""Groups."""
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, double and integer."""

_IMPLICIT = {
    uid.encode() + b"\0" * (len(uid) % 2): uid.is_implicit_VR
    for uid in AllTransferSyntaxes
    if uid.is_little_endian and not uid.is_deflated
}
"""Whether a transfer syntax has implicit VR, by its bytes."""

_VRS = {
    str(vr).encode(): (str(vr), vr in EXPLICIT_VR_LENGTH_32, b"" if empty_value_for_VR(vr, raw=True) == b"" else None)
    for vr in VR
}
"""Name, whether its length has 32 bits, what stands for an empty value."""

_head = struct.Struct("<HH2sH").unpack_from
_long = struct.Struct("<L").unpack_from

_Elements = dict[BaseTag, DataElement | RawDataElement]
_Characters = str | MutableSequence[str]


def header_of(file: BinaryIO, head: bytes) -> tuple[FileDataset, int]:
    """The dataset of a file that begins with `head`, up to its pixels, and where that ends.

    Raises one of MALFORMED for what is no DICOM object.
    """
    try:
        return _walked(head, pixels=False)
    except MALFORMED:
        file.seek(0)
        # force: old archives write files without the preamble.
        header = dcmread(file, stop_before_pixels=True, force=True)
        return header, file.tell()


def image_of(path: Path) -> FileDataset:
    """The dataset of a file up to and with its pixels.  Raises one of MALFORMED for what is no DICOM object."""
    try:
        return _walked(path.read_bytes(), pixels=True)[0]
    except MALFORMED:
        return dcmread(path, force=True)


def _walked(content: bytes, *, pixels: bool) -> tuple[FileDataset, int]:
    """The dataset, with or without its pixels, and where these begin.

    Raises one of MALFORMED where it is for pydicom to say what this is.
    """
    if content[_PREAMBLE : _PREAMBLE + len(_PREFIX)] != _PREFIX:
        raise ValueError("no preamble")
    meta, begin = _elements(content, _PREAMBLE + len(_PREFIX), False, lambda which: which >> 16 != _META)
    implicit = _IMPLICIT[meta[tag("TransferSyntaxUID")].value or b""]
    found, behind = _elements(content, begin, implicit, _PIXELS.__contains__)
    if len(content) - behind < _LONGEST_START:
        raise ValueError("no pixels, or not in what was read")
    if pixels:
        found |= _elements(content, behind, implicit, lambda which: which not in _PIXELS)[0]
    file_meta = FileMetaDataset(meta)
    file_meta.set_original_encoding(False, True, default_encoding)
    # Read already: given a name, pydicom would ask for the file's times.
    dataset = FileDataset(io.BytesIO(), found, content[:_PREAMBLE], file_meta, implicit, True)
    dataset.set_original_encoding(implicit, True, _characters(found))
    return dataset, behind


def _elements(content: bytes, position: int, implicit: bool, ends: Callable[[int], bool]) -> tuple[_Elements, int]:
    """The elements from `position` to the first that `ends` them, or to the end, and where that is."""
    found: _Elements = {}
    while position < len(content):
        group, number, letters, length = _head(content, position)
        which = group << 16 | number
        if ends(which):
            break
        start = position + 8
        if not implicit:
            vr, long, empty = _VRS[letters]
            if long:
                (length,) = _long(content, start)
                start += 4
        elif group == _DELIMITERS or (letters.isalpha() and letters.isupper()):
            raise ValueError("not what comes in implicit VR")
        else:
            vr, empty = None, None
            (length,) = _long(content, position + 4)
        if group == _COMMANDS:
            raise ValueError("a command")
        which_tag = tag_of(which)
        if length == _UNDEFINED:
            found[which_tag], position = _sequence(content, position, implicit, _characters(found))
            continue
        position = start + length
        if position > len(content):
            raise ValueError("cut off")
        value = content[start:position] if length else empty
        found[which_tag] = RawDataElement(which_tag, vr, length, value, start, implicit, True)
    return found, position


def _sequence(content: bytes, position: int, implicit: bool, characters: _Characters) -> tuple[DataElement, int]:
    """The sequence of undefined length at `position`, and where it ends: its items are for pydicom."""
    file = io.BytesIO(content)
    file.seek(position)
    element = next(data_element_generator(file, implicit, True, encoding=characters), None)
    if not isinstance(element, DataElement):
        raise ValueError("no sequence")
    return element, file.tell()


def _characters(found: _Elements) -> _Characters:
    """The character set of a dataset, as pydicom knows it."""
    element = found.get(tag("SpecificCharacterSet"))
    return default_encoding if element is None else _encodings(element.value or b"")


@lru_cache(maxsize=256)
def _encodings(specific: bytes) -> _Characters:
    return convert_encodings(convert_string(specific, True))
