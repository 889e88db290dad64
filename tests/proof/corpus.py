"""The sound objects that are broken: every vendor's writer, and every transfer syntax the node takes."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.e2e.phantom import simple_head
from tests.objects import encode
from tests.simulation.encodings import ENCODINGS, UNTOLD

SHAPE = (32, 32, 4)
"""The smallest that JPEG 2000 encoders take with their usual five levels."""
_PREAMBLE = 128 + 4
_GROUP_LENGTH_ELEMENT = 12


@dataclass(frozen=True)
class Seed:
    """One object: its data set in `syntax`, and the files of the study that it is part of."""

    name: str
    encoded: bytes
    syntax: UID
    sop_class_uid: str
    sop_instance_uid: str
    study: tuple[Path, ...]


def seeds(folder: Path) -> list[Seed]:
    """A phase image (or the whole, where a file holds all) of each encoding, and one image in each transfer syntax."""
    found = []
    for number, (name, write) in enumerate({**ENCODINGS, **UNTOLD}.items()):
        study = tuple(write(simple_head(number, SHAPE), folder / name.replace(" ", "_")))
        found.append(_seed(name, dcmread(study[-1]), study))
    plain = found[0].study[-1]
    first = found[0]
    turned = dcmread(plain)
    turned.PixelData = np.frombuffer(turned.PixelData, "<u2").astype(">u2").tobytes()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for syntax, encoded in (
        (ImplicitVRLittleEndian, encode(dcmread(plain), ImplicitVRLittleEndian)),
        (ExplicitVRBigEndian, encode(turned, ExplicitVRBigEndian)),
        (DeflatedExplicitVRLittleEndian, deflater.compress(first.encoded) + deflater.flush()),
    ):
        found.append(replace(first, name=syntax.name, encoded=encoded, syntax=syntax))
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
        compressed = dcmread(plain)
        compressed.compress(syntax, generate_instance_uid=False)
        found.append(_seed(syntax.name, compressed, found[0].study))
    return found


def data_set(file: bytes) -> bytes:
    """All that follows the File Meta Information of a file."""
    (length,) = struct.unpack_from("<L", file, _PREAMBLE + 8)
    return file[_PREAMBLE + _GROUP_LENGTH_ELEMENT + length :]


def _seed(name: str, image: FileDataset, study: tuple[Path, ...]) -> Seed:
    stream = io.BytesIO()
    image.save_as(stream, enforce_file_format=True)
    syntax = UID(str(image.file_meta.TransferSyntaxUID))
    return Seed(name, data_set(stream.getvalue()), syntax, image.SOPClassUID, image.SOPInstanceUID, study)
