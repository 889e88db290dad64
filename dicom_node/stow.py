"""STOW: sends results to a DICOMweb archive (STOW-RS, PS3.18 10.5), an instance for each request over one connection.

A file goes out as the bytes it holds and is never held in memory as a whole.  What the answer says of an instance
means what the same status means in a C-STORE response; what stops all of them, as wrong credentials do, is the peer's
failure.  One that the peer stumbles over is tried again later and does not keep the others.
"""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.call import SendSettings
from dicom_node.errors import UnreadableObject
from dicom_node.send import MOST_SUSPECTED, Delivery, classify
from dicom_node.web import OF_THE_PEER, BrokenOff, Visit, WebService

_FAILED, _REFERENCED = "00081198", "00081199"
_FAILURE_REASON, _INSTANCE = "00081197", "00081155"
"""FailedSOPSequence, ReferencedSOPSequence, FailureReason, ReferencedSOPInstanceUID in the DICOM JSON model."""
_REFUSED = {400: 0xC000, 413: 0xC000, 415: 0x0122}
"""What an HTTP status says of this very instance, as a status of C-STORE: cannot understand, class not supported."""
_PROCESSING_FAILURE = 0x0110
"""Status of C-STORE for an instance that is to be tried again."""
_LONGEST_ANSWER, _CHUNK = 2**20, 2**16
"""Bytes."""


def stow(files: Sequence[Path], destination: WebService, settings: SendSettings) -> Iterator[Delivery]:
    """Yields one Delivery for each file as it is answered, in order; like `send.send`, with the same errors."""
    uids = [_uid(path) for path in files]
    suspected: list[Delivery] = []
    with Visit(destination, settings) as visit:
        for path, uid in zip(files, uids, strict=True):
            try:
                delivery = _post(visit, path, uid)
            except BrokenOff as error:
                if len(suspected) == MOST_SUSPECTED:
                    raise
                suspected.append(Delivery(uid, path, None, "retry", f"{error} at instance {uid}", broke_off=True))
                continue
            while suspected:
                yield suspected.pop(0)
            yield delivery
        if suspected:
            with visit.ask("GET", "studies", query={"limit": 1}):
                pass  # they were the last, and the peer still answers, whatever that is
            yield from suspected


def _post(visit: Visit, path: Path, uid: str) -> Delivery:
    boundary = secrets.token_hex(16)
    with visit.ask(
        "POST",
        "studies",
        content_type=f'multipart/related; type="application/dicom"; boundary={boundary}',
        body=lambda: _Part(path, boundary),
    ) as answer:
        body = answer.raw.read(_LONGEST_ANSWER, decode_content=True)
    code = answer.status_code
    if code in (200, 202, 409):
        return _told(uid, path, code, body)
    if code in _REFUSED:
        return Delivery(uid, path, _REFUSED[code], "refused", f"HTTP {code} {answer.reason}")
    if code < 400 or code in OF_THE_PEER:
        raise visit.stopped(answer)
    return Delivery(uid, path, _PROCESSING_FAILURE, "retry", f"HTTP {code} {answer.reason}")


def _told(uid: str, path: Path, code: int, body: bytes) -> Delivery:
    """What the Store Instances Response Module (PS3.18 I.2) says of the instance."""
    try:
        told: dict[str, Any] = json.loads(body) if body.strip() else {}
        failed = {_value(item, _INSTANCE): item for item in told.get(_FAILED, {}).get("Value", [])}
        stored = {_value(item, _INSTANCE) for item in told.get(_REFERENCED, {}).get("Value", [])}
        if uid in failed:
            status = int(_value(failed[uid], _FAILURE_REASON) or _PROCESSING_FAILURE)
            return Delivery(uid, path, status, classify(status), f"HTTP {code}")
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
        return Delivery(uid, path, _PROCESSING_FAILURE, "retry", f"HTTP {code} with an answer that is no DICOM JSON")
    if uid in stored or (code == 200 and not failed):
        return Delivery(uid, path, 0x0000, "stored")
    return Delivery(uid, path, _PROCESSING_FAILURE, "retry", f"HTTP {code} without a word about this instance")


def _value(item: dict[str, Any], tag: str) -> Any:
    values = item.get(tag, {}).get("Value", [])
    return values[0] if values else None


class _Part:
    """A multipart body with one file in it, read as it is sent; its length is known beforehand."""

    def __init__(self, path: Path, boundary: str) -> None:
        self._file = path.open("rb")
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        self._left: list[IO[bytes]] = [io.BytesIO(head), self._file, io.BytesIO(tail)]
        self._length = len(head) + path.stat().st_size + len(tail)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(_CHUNK), b"")

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, and some as long as there are any."""
        while self._left:
            if chunk := self._left[0].read(size):
                return chunk
            self._left.pop(0)
        return b""


def _uid(path: Path) -> str:
    try:
        return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
    except (InvalidDicomError, AttributeError, EOFError) as error:
        raise UnreadableObject(f"{path} is no DICOM file with File Meta Information: {error}") from error
