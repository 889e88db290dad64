"""Which reader understands an object."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node.convert import (
    bruker,
    canon,
    ge,
    generic,
    hitachi,
    philips,
    philips_enhanced,
    siemens,
    siemens_enhanced,
    united_imaging,
)
from dicom_node.convert.reader import Reader

_READERS: tuple[Reader, ...] = (
    siemens,
    siemens_enhanced,
    philips,
    philips_enhanced,
    ge,
    united_imaging,
    canon,
    hitachi,
    bruker,
    generic,  # last: it reads whatever is an MR image
)


def name(reader: Reader) -> str:
    """As `Instance.encoding` has it: the name of the file."""
    return reader.__name__.rpartition(".")[2]


def reader_of(header: Dataset) -> Reader | None:
    return next((reader for reader in _READERS if reader.reads(header)), None)
