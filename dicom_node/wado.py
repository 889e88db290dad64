"""WADO-RS (PS3.18 10.4): brings a series from a DICOMweb archive, in the transfer syntax it is held in.

The answer is taken apart as it comes: each object goes to a file, and from there through the door that received objects
pass; memory holds a piece of it at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.errors import InvalidDicomError
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from requests import Response

from dicom_node.call import SendSettings
from dicom_node.errors import NotTaken, PeerFailure, Unreachable
from dicom_node.receive import AGAIN_LATER, SUCCESS, Offered, Take
from dicom_node.web import OF_THE_PEER, Visit, WebService

_AS_HELD = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_AS_THEY_LIKE = 'multipart/related; type="application/dicom"'
"""For a service that knows no wild card (PS3.18 8.7.3.5.2): Explicit VR Little Endian, or whatever else it has."""
_NOT_ACCEPTABLE = (400, 406)
_CHUNK = 2**16
_LARGEST_META = 2**16
"""Bytes; File Meta Information has about ten elements."""
_PREAMBLE = 128 + 4 + 12
"""Bytes of preamble, prefix and (0002,0000), which tells how long the rest of the File Meta Information is."""


@dataclass(frozen=True)
class Landing:
    """Where objects come down.  brings: `Receiver.brings`.  folder: for files that are swept at the next start.

    maximum_bytes: of one object.
    """

    brings: Callable[[str], AbstractContextManager[Take]]
    folder: Path
    maximum_bytes: int


def retrieve(
    study: str, series: str, service: WebService, settings: SendSettings, landing: Landing, stopping: Callable[[], bool]
) -> int:
    """How many objects of a series came and were taken.

    stopping: then it is broken off.  Raises NotTaken for objects that the node does not take, PeerFailure for a series
    that does not come, Unreachable for what says nothing of this series.
    """
    path = f"studies/{study}/series/{series}"
    with Visit(service, settings) as visit, landing.brings(service.name) as take:
        arrivals = _Arrivals(service, landing, take)
        for accept in (_AS_HELD, _AS_THEY_LIKE):
            with visit.ask("GET", path, accept=accept) as answer:
                if answer.status_code in _NOT_ACCEPTABLE and accept == _AS_HELD:
                    continue
                if answer.status_code != 200:
                    raise _failure(visit, service, answer)
                _take_apart(answer, arrivals, service, stopping)
                break
    if arrivals.refused:
        some, reason = len(arrivals.refused), next(iter(arrivals.refused.values()))
        raise NotTaken(f"{some} of {some + len(arrivals.taken)} objects were not taken: {reason}")
    return len(arrivals.taken)


def _failure(visit: Visit, service: WebService, answer: Response) -> PeerFailure:
    code = answer.status_code
    if code in (404, 410):
        return PeerFailure(f"{service.words} does not have the series (HTTP {code})")
    if code < 400 or code in OF_THE_PEER:
        return visit.stopped(answer)
    return PeerFailure(f"{service.words} answered HTTP {code} to a request for a series")


def _take_apart(answer: Response, arrivals: _Arrivals, service: WebService, stopping: Callable[[], bool]) -> None:
    kind, options = parse_options_header(answer.headers.get("Content-Type", ""))
    boundary = options.get(b"boundary", b"")
    if kind.lower() != b"multipart/related" or not boundary:
        raise PeerFailure(f"{service.words} answered with {kind.decode('latin-1')!r}, expected multipart/related")
    try:
        parser = MultipartParser(boundary, arrivals.callbacks)
        for chunk in answer.raw.stream(_CHUNK, decode_content=True):
            if stopping():
                raise PeerFailure(f"{service.words} is listened to no further: the node stops")
            parser.write(chunk)
    except FormParserError as error:
        raise PeerFailure(f"{service.words} sent what is no multipart message: {type(error).__name__}") from error
    finally:
        arrivals.close()
    if not arrivals.is_over:
        raise PeerFailure(f"{service.words} broke off in the middle of a series")


class _Arrivals:
    """What comes, part by part.  taken: SOP Instance UIDs.  refused: the reason for each."""

    def __init__(self, service: WebService, landing: Landing, take: Take) -> None:
        self._service = service
        self._landing = landing
        self._take = take
        self._head = bytearray()
        self._meta: FileMetaDataset | None = None
        self._file: BinaryIO | None = None
        self.taken: set[str] = set()
        self.refused: dict[str, str] = {}
        self.is_over = False
        self.callbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._over,
        }

    def close(self) -> None:
        """Removes what is half there."""
        if self._file is not None:
            self._file.close()
            Path(self._file.name).unlink(missing_ok=True)
            self._file = None

    def _begin(self) -> None:
        self._head = bytearray()
        self._meta = None
        self._file = (self._landing.folder / f"{secrets.token_hex(16)}.part").open("w+b")

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        if self._meta is not None:
            self._file.write(memoryview(data)[start:end])
            if self._file.tell() > self._landing.maximum_bytes:
                raise NotTaken(f"an object is larger than {self._landing.maximum_bytes} bytes: see maximum_object_bytes")
            return
        self._head += data[start:end]
        if len(self._head) < _PREAMBLE:
            return
        length = _PREAMBLE + int.from_bytes(self._head[_PREAMBLE - 4 : _PREAMBLE], "little")
        if self._head[128:140] != b"DICM\x02\0\0\0UL\x04\0" or length > _LARGEST_META:
            raise PeerFailure(f"{self._service.words} sent a part that is no DICOM file (PS3.10)")
        if len(self._head) >= length:
            self._meta = _meta(bytes(self._head[:length]), self._service)
            rest = bytes(self._head[length:])
            self._head = bytearray()
            self._data(rest, 0, len(rest))

    def _end(self) -> None:
        assert self._file is not None
        meta = self._meta
        if meta is None:
            raise PeerFailure(f"{self._service.words} sent a part that ends within its File Meta Information")
        uid = meta.MediaStorageSOPInstanceUID
        self._file.flush()
        try:
            with mmap(self._file.fileno(), 0, access=ACCESS_READ) as encoded:
                answer = self._take(Offered(meta.MediaStorageSOPClassUID, uid, meta.TransferSyntaxUID, encoded))
        except ValueError as error:  # mmap of nothing
            raise PeerFailure(f"{self._service.words} sent an object without a data set") from error
        finally:
            self.close()
        comment = str(answer.get("ErrorComment", ""))
        if comment.endswith(AGAIN_LATER):
            raise Unreachable(f"what {self._service.name} sends cannot be kept: {comment}")
        if answer.Status == SUCCESS:
            self.taken.add(str(uid))
        else:
            self.refused[str(uid)] = f"0x{answer.Status:04X} {comment}"

    def _over(self) -> None:
        self.is_over = True


def _meta(head: bytes, service: WebService) -> FileMetaDataset:
    try:
        meta = dcmread(BytesIO(head)).file_meta
        _ = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID
    except (InvalidDicomError, AttributeError, ValueError, EOFError) as error:
        raise PeerFailure(f"{service.words} sent a part whose File Meta Information cannot be read") from error
    return meta
