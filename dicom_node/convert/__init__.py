"""The door in: stored DICOM objects become an acquisition."""

from dicom_node.convert.convert import convert
from dicom_node.convert.describe import describe
from dicom_node.convert.source import Reference, Source

__all__ = ["Reference", "Source", "convert", "describe"]
