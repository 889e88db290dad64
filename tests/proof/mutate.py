"""Hostile bytes from sound ones: seeded, so that what went wrong once can be made to go wrong again."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

from dicom_node.structure import Skeleton

_LENGTHS = (0, 1, 7, 0x7F, 0xFF, 0x7FFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
"""Where signed and unsigned, 16 and 32 bits, defined and undefined length part."""

VALUES: tuple[bytes, ...] = (
    b"",
    b"\0",
    b" ",
    b"\\",
    b"\\\\\\",
    # paths: pydicom ≤ 3.0.1 (DICOMDIR), pynetdicom's qrscp (CVE-2026-56445), DCMTK's getscu (CVE-2026-50003)
    b"../../../../../../tmp/evil",
    b"/etc/passwd\0",
    b"1.2.3/../../4",
    b"..",
    b"C:\\windows\\evil",
    b"1.2.3\0/../../evil",
    # numbers that are none, or too many of them
    b"nan",
    b"-inf",
    b"1e999",
    b"-1",
    b"0",
    b"1e-300",
    b"9" * 40,
    b"2147483648",
    b"18446744073709551616",
    b"1\\2\\3\\4\\5\\6\\7\\8\\9",
    b"\\".join([b"1"] * 4000),
    # texts: control characters, forged log lines, character sets that switch and do not end (mercure #42, #59, #82)
    b'\r\n{"event": "forged"}',
    b"\x1b[2J\x1b]0;title\x07",
    b"\x1b$B\x3b\x33\x45\x44\x1b(J",
    b"\x1b$)C\xb1\xe8\x1b",
    b"\x1b" * 64,
    b"ISO 2022 IR 87\\ISO 2022 IR 159\\ISO 2022 IR 149",
    b"ISO_IR 192\\GB18030",
    b"\\ISO 2022 IR 999",
    b"\xff\xfe\xfd" * 20,
    "Æ\u202e\U0001f9e0".encode(),
    b"{}%s%n${jndi:x}",
    b"A" * 5000,
    # dates and times
    b"20261399",
    b"99999999999999.999999",
    b"20200101120000+9999",
    # UIDs at and beyond the edge of PS3.5 9.1
    b"1." + b"2" * 62,
    b"1." + b"2" * 63,
    b"1..2",
    b"01.02.03",
    b"1.2.840.10008.1.2.1.99",
    b"1.2.840.10008.5.1.4.1.1.4.1",
    # binary numbers
    struct.pack("<H", 0),
    struct.pack("<H", 1),
    struct.pack("<H", 0xFFFF),
    struct.pack("<L", 0xFFFFFFFF),
    struct.pack("<d", float("nan")),
    struct.pack("<d", float("inf")),
)
"""What is put where a value was."""


class Mutator:
    """Changes bytes at random.  seed: the same seed, the same changes, in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)


def scrambled(sound: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Bytes turned, put in, taken out, doubled, moved, cut off, mixed with `others`; lengths overwritten."""
    changed = bytearray(sound)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        place = chance.randrange(len(changed) + 1)
        run = chance.choice((1, 2, 4, 8, 64))
        match chance.randrange(9):
            case 0 if place < len(changed):
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                changed[place : place + run] = chance.randbytes(run)
            case 2:
                changed[place:place] = chance.randbytes(run)
            case 3:
                del changed[place : place + run]
            case 4:
                changed[place:place] = changed[place : place + run]
            case 5 if chance.random() < 0.3:
                del changed[place:]
            case 6:
                changed[place : place + 4] = struct.pack("<L", chance.choice(_LENGTHS))
            case 7:
                changed[place : place + 2] = struct.pack(chance.choice("<>") + "H", chance.choice(_LENGTHS) & 0xFFFF)
            case 8:
                other = chance.choice(others)
                begin = chance.randrange(len(other) + 1)
                changed[place : place + run] = other[begin : begin + 16 * run]
    return bytes(changed)


def revalued(sound: bytes, chance: random.Random) -> bytes:
    """A well-formed data set, explicit VR little endian, with hostile values under honest lengths."""
    elements = Skeleton(sound, implicit=False, little_endian=True, encapsulated=False).elements
    changed = sound
    # From the last to the first, so that the places of the others stay.
    for tag in sorted(chance.sample(sorted(elements), chance.choice((1, 1, 2, 4))), reverse=True):
        found = elements[tag]
        if found.length is None:
            continue
        value = chance.choice(VALUES)
        header = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        vr = chance.choice(_OTHER_VRS) if chance.random() < 0.1 else (found.vr or "UN").encode()
        is_long = vr in _LONG_VRS
        began = found.start - (12 if (found.vr or "UN").encode() in _LONG_VRS else 8)
        value = value[: 0xFFFF if not is_long else None]
        length = struct.pack("<HL", 0, len(value)) if is_long else struct.pack("<H", len(value))
        changed = changed[:began] + header + vr + length + value + changed[found.start + found.length :]
    return changed


_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_OTHER_VRS = (b"UN", b"SQ", b"OB", b"PN", b"DS", b"IS", b"US", b"AT", b"FD", b"UT", b"ZZ")


def misspoken(pdus: Sequence[bytes], chance: random.Random) -> bytes:
    """A conversation of whole PDUs with one scrambled under an honest length, or out of its turn, or cut off."""
    said = list(pdus)
    for _ in range(chance.choice((1, 1, 2))):
        place = chance.randrange(len(said))
        match chance.randrange(6):
            case 0 | 1:
                inner = scrambled(said[place][6:], chance, [pdu[6:] for pdu in pdus])
                said[place] = said[place][:2] + struct.pack(">L", len(inner)) + inner
            case 2:
                said[place] = scrambled(said[place], chance, pdus)
            case 3:
                said.insert(chance.randrange(len(said) + 1), chance.choice(pdus))
            case 4 if len(said) > 1:
                del said[place]
            case 5:
                chance.shuffle(said)
    stream = b"".join(said)
    return stream[: chance.randrange(len(stream) + 1)] if chance.random() < 0.2 else stream


def split(stream: bytes) -> list[bytes]:
    """The PDUs of a recorded conversation (PS3.8 9.3.1: type, reserved, length)."""
    pdus, place = [], 0
    while place < len(stream):
        (length,) = struct.unpack_from(">L", stream, place + 2)
        pdus.append(stream[place : place + 6 + length])
        place += 6 + length
    return pdus
