"""Datasets as files (PS3.10 7): what several datasets share, an element or a text, is encoded once.

The images of a series have all but a few elements in common (see `series`), a study has hundreds of images, and a
report says the same codes thousands of times.  The bytes are those that pydicom's dcmwrite gives.
"""

from __future__ import annotations

import struct

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, write_data_element
from pydicom.tag import ItemTag
from pydicom.uid import UID
from pydicom.valuerep import AMBIGUOUS_VR

LONGEST_KEPT = 1 << 16
"""Bytes.  What is longer is pixels, which no two datasets share."""

_PREAMBLE = bytes(128) + b"DICM"
_GROUP_LENGTH = struct.Struct("<HH2sHL")
_VERSION = b"\2\0\1\0OB\0\0\2\0\0\0\0\1"
"""File Meta Information Version (PS3.10 table 7.1-1)."""
_LONG_FORM = struct.Struct("<HH2sHL")
"""Of an element before its value: tag, VR, reserved, length in 32 bits (PS3.5 7.1.2)."""


class Writer:
    """Encodes one dataset after the other in explicit VR, little endian.

    An element must not change between the datasets that share it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], tuple[DataElement, bytes]] = {}
        """By identity and character set; with the element, so that its identity stays its own."""
        self._texts: dict[tuple[int, str, str, str], bytes] = {}
        """By tag, VR, value and character set."""

    def __call__(self, dataset: Dataset) -> bytes:
        """The whole file: preamble, file meta information and dataset."""
        meta = _VERSION + self._dataset(dataset.file_meta, default_encoding, [])
        length = _GROUP_LENGTH.pack(2, 0, b"UL", 4, len(meta))
        return b"".join((_PREAMBLE, length, meta, self._dataset(dataset, default_encoding, [])))

    def _dataset(self, dataset: Dataset, inherited: str | list[str], above: list[Dataset]) -> bytes:
        characters = dataset.get("SpecificCharacterSet", inherited)
        return b"".join(
            self._element(dataset[tag] if isinstance(element, RawDataElement) else element, dataset, characters, above)
            for tag, element in sorted(dataset.items(), key=lambda item: int(item[0]))
        )

    def _element(
        self, element: DataElement, dataset: Dataset, characters: str | list[str], above: list[Dataset]
    ) -> bytes:
        value = element.value
        if type(value) in (str, UID):
            text = (int(element.tag), element.VR, value, str(characters))
            if text not in self._texts:
                self._texts[text] = self._encoded(element, dataset, characters, above)
            return self._texts[text]
        key = (id(element), str(characters))
        if key in self._kept:
            return self._kept[key][1]
        if element.VR in AMBIGUOUS_VR:
            correct_ambiguous_vr_element(element, dataset, True, [dataset, *above])  # in place
        encoded = self._encoded(element, dataset, characters, above)
        if len(encoded) <= LONGEST_KEPT:
            self._kept[key] = (element, encoded)
        return encoded

    def _encoded(
        self, element: DataElement, dataset: Dataset, characters: str | list[str], above: list[Dataset]
    ) -> bytes:
        if element.VR == "SQ":
            items = b"".join(
                struct.pack("<HHL", ItemTag.group, ItemTag.element, len(content)) + content
                for content in (self._dataset(item, characters, [dataset, *above]) for item in element.value or ())
            )
            tag = element.tag
            return struct.pack("<HH2sHL", tag.group, tag.element, b"SQ", 0, len(items)) + items
        buffer = DicomBytesIO()
        buffer.is_little_endian, buffer.is_implicit_VR = True, False
        write_data_element(buffer, element, characters)
        return buffer.getvalue()
