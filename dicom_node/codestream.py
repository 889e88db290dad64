"""Codestream: how large an image a compressed frame says that it is, before any decoder believes it.

A JPEG 2000 codestream of 200 bytes can unpack to gigabytes, whatever Rows and Columns say; a JPEG-LS one of another
size is decoded to noise without a word.
"""

from __future__ import annotations

import struct

_SOI, _SOC = b"\xff\xd8", b"\xff\x4f\xff\x51"
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment (ISO/IEC 10918-1, table B.1)."""
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""SOF0…SOF15 without DHT, JPG and DAC; SOF55 is that of JPEG-LS (ISO/IEC 14495-1, C.1.1)."""


def size_of(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 codestream; None where it is none, or ends before it says so."""
    try:
        if frame.startswith(_SOC):  # SIZ follows (ISO/IEC 15444-1, A.5.1)
            right, bottom, left, top = struct.unpack_from(">4L", frame, 8)
            return bottom - top, right - left
        return _start_of_frame(frame) if frame.startswith(_SOI) else None
    except struct.error:
        return None


def _start_of_frame(frame: bytes) -> tuple[int, int] | None:
    place = len(_SOI)
    while True:
        fill, marker, length = struct.unpack_from(">BBH", frame, place)
        if fill != 0xFF:
            return None
        if marker in _START_OF_FRAME:
            rows, columns = struct.unpack_from(">HH", frame, place + 5)
            return rows, columns
        place += 2 if marker in _STANDALONE else 1 if marker == 0xFF else 2 + length
