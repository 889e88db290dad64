"""Datasets as files (PS3.10 7): an element that several datasets share is encoded once.

The images of a series have all but a few elements in common (see `series`), and a study has hundreds of images.  The
bytes are those that pydicom's dcmwrite gives.
"""

from __future__ import annotations

import io
import struct

from pydicom.charset import default_encoding
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr_element, dcmwrite, write_data_element
from pydicom.tag import ItemTag
from pydicom.valuerep import AMBIGUOUS_VR

LONGEST_KEPT = 1 << 16
"""Bytes.  What is longer is pixels, which no two datasets share."""


class Writer:
    """Encodes one dataset after the other in explicit VR, little endian.

    An element must not change between the datasets that share it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], tuple[DataElement, bytes]] = {}
        """By identity and character set; with the element, so that its identity stays its own."""

    def __call__(self, dataset: Dataset) -> bytes:
        """The whole file: preamble, file meta information and dataset."""
        file = io.BytesIO()
        meta = Dataset()
        meta.file_meta = dataset.file_meta
        dcmwrite(file, meta, enforce_file_format=True)
        file.write(self._dataset(dataset, default_encoding, []))
        return file.getvalue()

    def _dataset(self, dataset: Dataset, inherited: str | list[str], above: list[Dataset]) -> bytes:
        characters = dataset.get("SpecificCharacterSet", inherited)
        return b"".join(
            self._element(dataset[tag] if isinstance(element, RawDataElement) else element, dataset, characters, above)
            for tag, element in sorted(dataset.items(), key=lambda item: int(item[0]))
        )

    def _element(
        self, element: DataElement, dataset: Dataset, characters: str | list[str], above: list[Dataset]
    ) -> bytes:
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
