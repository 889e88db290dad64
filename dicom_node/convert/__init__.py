"""The door in: stored DICOM objects become an acquisition.

describe    one object's header -> what grouping needs to know of it, or why it is refused
convert     a complete group -> the acquisition and what its output inherits

A vendor's way of writing phase is one file (`siemens`, `siemens_enhanced`, `philips`, `philips_enhanced`) that
publishes the names of `reader.Reader`; `readers` lists them.
"""

from dicom_node.convert.convert import convert
from dicom_node.convert.describe import describe
from dicom_node.convert.source import Reference, Source

__all__ = ["Reference", "Source", "convert", "describe"]
