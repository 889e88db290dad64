"""The door in: stored DICOM objects become an acquisition.

describe    one object's header -> what grouping needs to know of it, or why it is refused
convert     a complete group -> the acquisition and what its output inherits
scanner_of  a group -> the scanner it comes from, by which a site may configure an `Override`

A vendor's way of writing phase is one file (`siemens`, `ge`, `philips`, …) that publishes the names of
`reader.Reader`; `readers` lists them.
"""

from typing import TYPE_CHECKING, Any

from dicom_node.convert.describe import describe
from dicom_node.convert.override import Override, Scanner, scanner_of

if TYPE_CHECKING:
    from dicom_node.convert.convert_group import convert
    from dicom_node.convert.source import Reference, Source

__all__ = ["Override", "Reference", "Scanner", "Source", "convert", "describe", "scanner_of"]


def __getattr__(name: str) -> Any:
    """What makes arrays is loaded when it is asked for (PEP 562): the daemon describes, and holds no such library."""
    if name not in ("convert", "Reference", "Source"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dicom_node.convert.convert_group import convert
    from dicom_node.convert.source import Reference, Source

    found = {"convert": convert, "Reference": Reference, "Source": Source}
    globals().update(found)
    return found[name]
