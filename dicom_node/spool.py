"""The spool: received objects as files.  The files are the truth; every index can be made anew from them.

    receiving/<number>.part                        being written; swept at start-up
    images/<hash of study>/<hash of instance>.dcm  what was acknowledged
    conflicts/<hash of instance>/<digest>.dcm      acknowledged too: the same UID with other content
    unreadable/<hash of instance>-<digest>.dcm     acknowledged too, but not readable as DICOM; why stands in .json
    quarantine/<time>-<random>.dataset and .json   what was refused, and why; bounded, the oldest goes first

A file appears under its final name only when it is complete: written as .part in the same file system, fsynced,
renamed, and its folder fsynced.  Names are hashes of UIDs, never a sender's words (CVE-2026-56445: a path from a UID).
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import structlog

from dicom_node.errors import NodeError
from dicom_node.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.part import Part, part_in
from dicom_node.room import Room
from dicom_node.structure import Encoded

UID_PATTERN = re.compile(r"[0-9.]{1,64}")
"""What we take for a UID: the alphabet and length of PS3.5 9.1, without its rules on dots and zeros."""

_HASH_LENGTH = 32  # hex digits: 128 bit, beyond accidental collision
_LOCK_STRIPES = 64  # instances of different UID rarely wait for each other
_FULL = (errno.ENOSPC, errno.EDQUOT)

log = structlog.get_logger(__name__)


class SpoolFull(NodeError):
    """The file system of the spool has no room; nothing of the object was kept, nothing else was touched."""


class Kept(StrEnum):
    """What became of an object that was handed to `Spool.keep`."""

    NEW = "new"
    REPEATED = "repeated"
    """The same bytes were there before: nothing was written."""
    CONFLICT = "conflict"
    """The UID was there with other content: this one lies in conflicts/, the first one is untouched."""


@dataclass(frozen=True)
class ReceivedObject:
    """One object as it came over the network.

    encoded: the data set in its transfer syntax, without File Meta.  All UIDs match UID_PATTERN.
    part: the file of receiving/ that it lies in already, behind its File Meta.
    source_ae: the calling AE title, kept in the File Meta as Source Application Entity Title.
    """

    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae: str
    encoded: Encoded
    part: Path | None = None


class Spool:
    """Owner of the folder `root`.  Safe to use from many threads of one process.

    reserve: bytes of free space that are left to the rest of the node, see `Room`.  quarantine_files, quarantine_bytes:
    how much of the refused is kept.
    """

    def __init__(
        self,
        root: Path,
        *,
        reserve: int = 16 * 2**20,
        quarantine_files: int = 1000,
        quarantine_bytes: int = 2**30,
    ) -> None:
        self.root = root
        self.receiving = root / "receiving"
        self.images_folder = root / "images"
        self.conflicts = root / "conflicts"
        self.unreadable = root / "unreadable"
        self.quarantine_folder = root / "quarantine"
        self._room = Room(root, reserve)
        self._quarantine_files = quarantine_files
        self._quarantine_bytes = quarantine_bytes
        self._locks = [threading.Lock() for _ in range(_LOCK_STRIPES)]
        self._quarantine_lock = threading.Lock()
        self._quarantined: dict[Path, int] | None = None
        """Notes in quarantine, the oldest first, each with the bytes kept beside it; None until it was looked."""
        self._folders_lock = threading.Lock()
        self._durable_folders: set[Path] = set()
        self._settled: set[Path] = set()
        """Folders of which this process knows that the disk has all names."""
        made = [folder for folder in (root, *root.parents) if not folder.exists()]
        for folder in (
            self.receiving,
            self.images_folder,
            self.conflicts,
            self.unreadable,
            self.quarantine_folder,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (root, *(folder.parent for folder in made)):
            sync(folder)
        self.swept = self._sweep()
        self._paths = {path.stem: path for path in self.images()}
        """Hash of instance → file, over all studies: a UID is one object whatever study it claims to be in."""

    def images(self) -> Iterator[Path]:
        """Every acknowledged object, in a stable order; conflicts are not among them."""
        for study in sorted(self.images_folder.iterdir()):
            if study.is_dir():
                yield from sorted(study.glob("*.dcm"))

    def holds(self, sop_instance_uid: str) -> bool:
        """Whether an object of that UID was acknowledged and is here.  Raises ValueError for what is no UID."""
        path = self._paths.get(_name(sop_instance_uid))
        return path is not None and path.exists()

    def begin(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str) -> Part:
        """For an object that is about to arrive.  What is no UID leaves no File Meta: that object cannot be kept."""
        uids = sop_class_uid, sop_instance_uid, transfer_syntax_uid

        def meta() -> bytes:
            return file_meta(*uids, source_ae) if all(map(UID_PATTERN.fullmatch, uids)) else b""

        return Part(self.receiving, meta, self._require_room)

    def keep(self, received: ReceivedObject) -> tuple[Kept, Path]:
        """Make an object durable; when this returns it survives a crash of the machine.

        Raises SpoolFull when there is no room, ValueError when a UID does not match UID_PATTERN.
        """
        study, instance = _name(received.study_instance_uid), _name(received.sop_instance_uid)
        with self._locks[_stripe(instance)]:
            existing = self._paths.get(instance)
            if existing is None or not existing.exists():
                path = self.images_folder / study / f"{instance}.dcm"
                self._write(path, received)
                self._paths[instance] = path
                return Kept.NEW, path
            digest = hashlib.sha256(received.encoded).hexdigest()
            self._settle(existing.parent)
            if digest == data_set_digest(existing):
                os.utime(existing)  # whoever has just decided to remove it sees that it came again
                return Kept.REPEATED, existing
            aside = self.conflicts / instance / f"{digest}.dcm"
            if aside.exists():
                self._settle(aside.parent)
            else:
                self._write(aside, received)
            return Kept.CONFLICT, aside

    def set_aside(self, path: Path, reason: str, received_at: float) -> Path:
        """Move an acknowledged object that turned out to be unreadable to unreadable/; where it lies then.

        Nothing there is ever deleted: the sender was told that we have it.  Raises OSError, and the file stays.
        """
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        target = self.unreadable / f"{path.stem}-{digest[:_HASH_LENGTH]}.dcm"
        note = target.with_suffix(".json")
        note.unlink(missing_ok=True)  # of a crash between the note and the move, or of the same file before
        write_durably(note, json.dumps({"reason": reason, "received_at": received_at}, indent=1).encode() + b"\n")
        path.replace(target)
        sync(self.unreadable)
        sync(path.parent)
        return target

    def remove(self, path: Path, unchanged_since: int) -> bool:
        """Removes an acknowledged object whose time is over, unless it has come again meanwhile.

        unchanged_since: its modification time in ns as of the decision.  Raises OSError.
        """
        with self._locks[_stripe(path.stem)]:
            if not path.exists():
                self._paths.pop(path.stem, None)
                return True
            if path.stat().st_mtime_ns != unchanged_since:
                return False
            path.unlink()
            self._paths.pop(path.stem, None)
            return True

    def sweep_quarantine(self, before: float) -> int:
        """Removes what was refused before a time in s since the epoch; how many objects."""
        with self._quarantine_lock:
            old = [note for note in self.quarantine_folder.glob("*.json") if _received_at(note) < before]
            for note in old:
                note.with_suffix(".dataset").unlink(missing_ok=True)
                note.unlink(missing_ok=True)
            self._quarantined = None  # people may have taken something away, too
        return len(old)

    def sweep_empty_folders(self, before: float) -> None:
        """Removes folders of studies whose last object went before a time in s since the epoch."""
        with self._folders_lock:
            for study in list(self.images_folder.iterdir()):
                if study.stat().st_mtime < before and not any(study.iterdir()):
                    study.rmdir()
                    self._durable_folders.discard(study)

    def set_aside_before(self) -> Iterator[tuple[Path, str, float]]:
        """What lies in unreadable/: path, reason and time of reception of each object."""
        for note in sorted(self.unreadable.glob("*.json")):
            if (path := note.with_suffix(".dcm")).is_file():
                content = json.loads(note.read_text())
                yield path, content["reason"], content["received_at"]

    def quarantine(self, encoded: Encoded, reason: Mapping[str, str | int | float], received_at: float) -> Path | None:
        """Keep what was refused, as far as there is room, and return the file with the reason.

        The bytes are the data set as it came, without File Meta.  Never raises for lack of room: the sender has been
        told already, and a refusal must not cost more than the object itself.
        """
        name = f"{received_at:014.3f}-{secrets.token_hex(4)}"
        bytes_file = self.quarantine_folder / f"{name}.dataset"
        reason_file = self.quarantine_folder / f"{name}.json"
        with self._quarantine_lock:
            try:
                room = self._make_quarantine_room(len(encoded))
                note = {**reason, "received_at": received_at, "bytes": len(encoded), "kept": room}
                if room:
                    self._require_room(len(encoded))
                    bytes_file.write_bytes(encoded)
                reason_file.write_text(json.dumps(note, indent=1) + "\n")
                self._in_quarantine()[reason_file] = len(encoded) if room else 0
            except (OSError, SpoolFull) as error:
                log.warning("quarantine_not_kept", error=str(error))
                bytes_file.unlink(missing_ok=True)
                return None
        return reason_file

    def _make_quarantine_room(self, size: int) -> bool:
        """Drop the oldest until one more of `size` bytes fits; False when it would not fit alone."""
        kept = self._in_quarantine()
        fits = size <= self._quarantine_bytes
        allowed = self._quarantine_bytes - (size if fits else 0)
        total = sum(kept.values())
        while kept and (len(kept) >= self._quarantine_files or total > allowed):
            note = next(iter(kept))
            note.with_suffix(".dataset").unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            total -= kept.pop(note)
        return fits

    def _in_quarantine(self) -> dict[Path, int]:
        """Looked for once and counted from then on: under a storm of refusals each would list all of them."""
        if self._quarantined is None:
            notes = sorted(self.quarantine_folder.glob("*.json"))
            self._quarantined = {note: _size(note.with_suffix(".dataset")) for note in notes}
        return self._quarantined

    def _write(self, path: Path, received: ReceivedObject) -> None:
        folder = path.parent
        part = received.part or part_in(self.receiving)
        try:
            if received.part is None:
                meta = file_meta(
                    received.sop_class_uid, received.sop_instance_uid, received.transfer_syntax_uid, received.source_ae
                )
                self._require_room(len(meta) + len(received.encoded))
            if folder not in self._durable_folders:
                self._make_durable_folder(folder)
            if received.part is None:
                write_durably(part, meta, received.encoded)
            else:
                sync(part)
            try:
                part.replace(path)
            except FileNotFoundError:  # the folder was empty, and has been swept, or somebody has deleted it
                self._make_durable_folder(folder)
                part.replace(path)
            if folder not in self._durable_folders:  # another thread has just made it anew
                self._make_durable_folder(folder)
            sync(folder)
            self._settled.add(folder)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in _FULL:
                raise SpoolFull(
                    f"no room for {len(received.encoded)} bytes in {self.root}: {error.strerror}"
                ) from error
            raise

    def _settle(self, folder: Path) -> None:
        """Before what lies there is acknowledged again: whoever named it may have been killed before the disk knew."""
        if folder not in self._settled:
            sync(folder.parent)
            sync(folder)
            self._settled.add(folder)

    def _make_durable_folder(self, folder: Path) -> None:
        """Also waits for the other thread that is making it: a file is not durable before its folder is."""
        with self._folders_lock:
            if folder in self._durable_folders and folder.is_dir():
                return
            self._durable_folders.discard(folder)  # first: who names a file in the new one is to see that
            folder.mkdir(exist_ok=True)
            sync(folder.parent)
            self._durable_folders.add(folder)

    def refusal(self, size: int = 0) -> str:
        """Why an object of so many bytes would not be kept, "" if it would."""
        return self._room.refusal(size)

    def _require_room(self, size: int) -> None:
        if refusal := self.refusal(size):
            raise SpoolFull(refusal)

    def _sweep(self) -> int:
        """Remove what a crash left half written: none of it was acknowledged."""
        parts = list(self.receiving.glob("*.part"))
        for part in parts:
            part.unlink()
        if parts:
            log.info("unfinished_files_swept", count=len(parts))
        return len(parts)


def write_durably(path: Path, *chunks: Encoded) -> None:
    """Write a new file and wait until the disk has it.  Raises OSError (ENOSPC among others)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae: str) -> bytes:
    """Preamble, prefix and File Meta Information (PS3.10 7.1), explicit VR little endian.

    Packed by hand: encoding a small pydicom data set for each image costs more than writing the image.
    """
    elements = b"".join(
        (
            struct.pack("<HH2sHL2s", 0x0002, 0x0001, b"OB", 0, 2, b"\x00\x01"),
            _short_element(0x0002, b"UI", sop_class_uid, b"\0"),
            _short_element(0x0003, b"UI", sop_instance_uid, b"\0"),
            _short_element(0x0010, b"UI", transfer_syntax_uid, b"\0"),
            _short_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID, b"\0"),
            _short_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME, b" "),
            _short_element(0x0016, b"AE", source_ae, b" "),
        )
    )
    return bytes(128) + b"DICM" + struct.pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(elements)) + elements


def data_set_digest(path: Path) -> str:
    """SHA-256 of the data set of a file of ours, that is of all that follows its File Meta."""
    with path.open("rb") as file:
        file.seek(128 + 4 + 8)  # preamble, prefix, header of (0002,0000)
        (meta_length,) = struct.unpack("<L", file.read(4))
        file.seek(meta_length, os.SEEK_CUR)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short_element(element: int, vr: bytes, value: str, padding: bytes) -> bytes:
    encoded = value.encode("ascii")
    if len(encoded) % 2:
        encoded += padding
    return struct.pack("<HH2sH", 0x0002, element, vr, len(encoded)) + encoded


@lru_cache(maxsize=1024)
def _name(uid: str) -> str:
    if not UID_PATTERN.fullmatch(uid):
        raise ValueError(f"{uid[:70]!r} is no UID: expected 1 to 64 digits and dots")
    return hashlib.sha256(uid.encode("ascii")).hexdigest()[:_HASH_LENGTH]


def _stripe(instance: str) -> int:
    return int(instance[:8], 16) % _LOCK_STRIPES


def _received_at(note: Path) -> float:
    """From the name of a quarantine note; never, for a file that is none."""
    try:
        return float(note.stem.partition("-")[0])
    except ValueError:
        return math.inf


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sync(path: Path) -> None:
    """Waits until the disk has a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
