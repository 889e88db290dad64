"""Written files in other transfer syntaxes: what archives and routers make of them on their way."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import gdcm
import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

UNCOMPRESSED = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
}
LOSSLESS = {
    "rle": RLELossless,
    "jpeg lossless": JPEGLosslessSV1,
    "jpeg-ls": JPEGLSLossless,
    "jpeg 2000 lossless": JPEG2000Lossless,
}
LOSSY = {"jpeg-ls near lossless": JPEGLSNearLossless, "jpeg 2000": JPEG2000}
SYNTAXES = UNCOMPRESSED | LOSSLESS | LOSSY
"""By the name that `recode` takes."""

COMPRESSION_METHODS = {"jpeg-ls near lossless": "ISO_14495_1", "jpeg 2000": "ISO_15444_1"}
"""PS3.3 C.7.6.1.1.5.1."""
NEAR_LOSSLESS_ERROR = 2
"""What a stored value may be off by."""
JPEG_2000_RATIO = 8


def recode(paths: Sequence[Path], *names: str) -> list[Path]:
    """Rewrites little endian files in place, in the named transfer syntaxes in turn; the instances stay the same ones.

    Several names make a series of mixed syntaxes.  A lossy one also says in the header that it was lossy.
    """
    for path, name in zip(paths, cycle(names), strict=False):
        if name == "jpeg lossless":
            _jpeg_lossless(path)
        elif name in UNCOMPRESSED:
            _uncompressed(path, name)
        else:
            _compressed(path, name)
    return list(paths)


def _uncompressed(path: Path, name: str) -> None:
    d = dcmread(path)
    d.walk(lambda _, element: element.value)  # everything is parsed: raw bytes would keep their order
    d.file_meta.TransferSyntaxUID = SYNTAXES[name]
    little = SYNTAXES[name].is_little_endian
    if not little:
        d.PixelData = np.frombuffer(d.PixelData, "<u2").byteswap().tobytes()
    # force_encoding: pydicom refuses another byte order otherwise, for fear of pixels that were not swapped
    dcmwrite(path, d, implicit_vr=SYNTAXES[name].is_implicit_VR, little_endian=little, force_encoding=True)


def _compressed(path: Path, name: str) -> None:
    d = dcmread(path)
    options = {"jpeg-ls near lossless": {"jls_error": NEAR_LOSSLESS_ERROR}, "jpeg 2000": {"j2k_cr": [JPEG_2000_RATIO]}}
    before = len(d.PixelData)
    d.compress(SYNTAXES[name], generate_instance_uid=False, **options.get(name, {}))
    if name in LOSSY:
        _admit_loss(d, name, before)
    d.save_as(path, enforce_file_format=True)


def _admit_loss(d: FileDataset, name: str, before: int) -> None:
    d.LossyImageCompression = "01"
    d.LossyImageCompressionRatio = round(before / len(d.PixelData), 2)
    d.LossyImageCompressionMethod = COMPRESSION_METHODS[name]


def _jpeg_lossless(path: Path) -> None:
    """Process 14, selection value 1; of gdcm, its one encoder in reach, only the pixels: it rewrites attributes too."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        raise ValueError(f"gdcm cannot read {path.name}")
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    if not change.Change():
        raise ValueError(f"gdcm cannot make JPEG lossless of {path.name}")
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    encoded = [fragments.GetFragment(i).GetByteValue().GetBuffer() for i in range(fragments.GetNumberOfFragments())]
    d = dcmread(path)
    d.PixelData = encapsulate([fragment.encode("utf-8", "surrogateescape") for fragment in encoded])
    d["PixelData"].VR, d["PixelData"].is_undefined_length = "OB", True
    d.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    d.save_as(path, enforce_file_format=True)
