"""WADO-RS (PS3.18 10.4): brings a series from a DICOMweb archive, in the transfer syntax it is held in.

The answer is taken apart as it comes, and each object goes through the door that received objects pass; memory holds a
piece of it at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from requests import Response

from dicom_node.call import LONGEST_RETRIEVE, SendSettings, patient
from dicom_node.errors import NotTaken, PeerFailure, Unreachable
from dicom_node.hearing import Hearing
from dicom_node.messages import Taking
from dicom_node.qido import querying
from dicom_node.receive import AGAIN_LATER, SUCCESS, Bring
from dicom_node.spool import UID_PATTERN
from dicom_node.web import OF_THE_PEER, Visit, WebService

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

_AS_HELD = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_AS_THEY_LIKE = 'multipart/related; type="application/dicom"'
"""For a service that knows no wild card (PS3.18 8.7.3.5.2): Explicit VR Little Endian, or whatever else it has."""
_NOT_ACCEPTABLE = (400, 406)
_LARGEST_META = 2**16
"""Bytes; File Meta Information has about ten elements."""
_PREAMBLE = 128 + 4 + 12
"""Bytes of preamble, prefix and (0002,0000), which tells how long the rest of the File Meta Information is."""
_META_BEGINS = b"DICM\x02\0\0\0UL\x04\0"


@dataclass(frozen=True)
class Landing:
    """Where objects come down.  brings: `Receiver.brings`.  maximum_bytes: of one object.

    absent: which of some SOP Instance UIDs are not here yet.
    """

    brings: Callable[[str], AbstractContextManager[Bring]]
    maximum_bytes: int
    absent: Callable[[Sequence[str]], list[str]]


def retrieve(
    study: str, series: str, service: WebService, settings: SendSettings, landing: Landing, stopping: Callable[[], bool]
) -> int:
    """How many objects of a series came and were taken.

    stopping: then it is broken off.  Raises NotTaken for objects that the node does not take, PeerFailure for a series
    that does not come, Unreachable for what says nothing of this series.
    """
    return _retrieve([f"studies/{study}/series/{series}"], service, settings, landing, stopping)


def retrieve_rest(
    study: str,
    series: str,
    images: int,
    service: WebService,
    settings: SendSettings,
    landing: Landing,
    stopping: Callable[[], bool],
) -> int:
    """What is not here yet of a series that broke off before, object by object; how many are here then.

    One that breaks off each time would never come as a whole.  images: how many it holds, 0 where that was not told; of
    a service that does not list them all it is asked for as a whole again.  Raises what `retrieve` does.
    """
    keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": ""}
    with querying(service, settings, stopping) as find:
        told = [str(one.get("SOPInstanceUID") or "") for one in find("IMAGE", keys)]
    uids = [uid for uid in told if UID_PATTERN.fullmatch(uid)]
    if len(uids) < max(images, 1):
        return retrieve(study, series, service, settings, landing, stopping)
    absent = landing.absent(uids)
    paths = [f"studies/{study}/series/{series}/instances/{uid}" for uid in absent]
    return len(uids) - len(absent) + _retrieve(paths, service, settings, landing, stopping)


def _retrieve(
    paths: Sequence[str], service: WebService, settings: SendSettings, landing: Landing, stopping: Callable[[], bool]
) -> int:
    until = time.monotonic() + LONGEST_RETRIEVE
    with Visit(service, patient(settings)) as visit, landing.brings(service.name) as bring:
        arrivals = _Arrivals(service, landing.maximum_bytes, bring)
        for path in paths:
            _get(path, visit, service, arrivals, stopping, until)
    if arrivals.refused:
        some, reason = len(arrivals.refused), next(iter(arrivals.refused.values()))
        raise NotTaken(f"{some} of {some + len(arrivals.taken)} objects were not taken: {reason}")
    return len(arrivals.taken)


def _get(
    path: str, visit: Visit, service: WebService, arrivals: _Arrivals, stopping: Callable[[], bool], until: float
) -> None:
    for accept in (_AS_HELD, _AS_THEY_LIKE):
        with Hearing(partial(visit.ask, "GET", path, accept=accept), stopping, until) as hearing:
            if hearing.answer.status_code in _NOT_ACCEPTABLE and accept == _AS_HELD:
                continue
            if hearing.answer.status_code != 200:
                raise _failure(visit, service, hearing.answer)
            _take_apart(hearing, arrivals, service)
            return


def _failure(visit: Visit, service: WebService, answer: Response) -> PeerFailure:
    code = answer.status_code
    if code in (404, 410):
        return PeerFailure(f"{service.words} does not have the series (HTTP {code})")
    if code < 400 or code in OF_THE_PEER:
        return visit.stopped(answer)
    return PeerFailure(f"{service.words} answered HTTP {code} to a request for a series")


def _take_apart(hearing: Hearing, arrivals: _Arrivals, service: WebService) -> None:
    arrivals.is_over = False
    kind, options = parse_options_header(hearing.answer.headers.get("Content-Type", ""))
    boundary = options.get(b"boundary", b"")
    if kind.lower() != b"multipart/related" or not boundary:
        raise PeerFailure(f"{service.words} answered with {kind.decode('latin-1')!r}, expected multipart/related")
    try:
        parser = MultipartParser(boundary, arrivals.callbacks)
        for chunk in hearing.chunks():
            parser.write(chunk)
    except FormParserError as error:
        raise PeerFailure(f"{service.words} sent what is no multipart message: {type(error).__name__}") from error
    finally:
        arrivals.close()
    if not arrivals.is_over:
        raise PeerFailure(f"{service.words} broke off in the middle of a series")


class _Arrivals:
    """What comes, part by part.  taken: SOP Instance UIDs.  refused: the reason for each."""

    def __init__(self, service: WebService, maximum_bytes: int, bring: Bring) -> None:
        self._service = service
        self._maximum_bytes = maximum_bytes
        self._bring = bring
        self._head = bytearray()
        """Of the part that comes, until its File Meta Information is whole."""
        self._uid = ""
        self._taking: Taking | None = None
        self._size = 0
        self.taken: set[str] = set()
        self.refused: dict[str, str] = {}
        self.is_over = False
        self.callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._over,
        }

    def close(self) -> None:
        """Forgets what is half there."""
        if self._taking is not None:
            self._taking.abandon()
            self._taking = None

    def _begin(self) -> None:
        self._head = bytearray()
        self._size = 0

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._taking is None:
            self._head += data[start:end]
            if len(self._head) < _PREAMBLE:
                return
            length = _PREAMBLE + int.from_bytes(self._head[_PREAMBLE - 4 : _PREAMBLE], "little")
            if self._head[128:140] != _META_BEGINS or length > _LARGEST_META:
                raise PeerFailure(f"{self._service.words} sent a part that is no DICOM file (PS3.10)")
            if len(self._head) < length:
                return
            meta = _meta(bytes(self._head[:length]), self._service)
            self._uid = str(meta.MediaStorageSOPInstanceUID)
            self._taking = self._bring(str(meta.MediaStorageSOPClassUID), self._uid, meta.TransferSyntaxUID)
            data, start, end = bytes(self._head), length, len(self._head)
        self._size += end - start
        if self._size > self._maximum_bytes:
            raise NotTaken(f"an object is larger than {self._maximum_bytes} bytes; see [receive] maximum_object_bytes")
        with memoryview(data)[start:end] as fragment:
            self._taking.write(fragment)

    def _end(self) -> None:
        taking, self._taking = self._taking, None
        if taking is None:
            raise PeerFailure(f"{self._service.words} sent a part that ends within its File Meta Information")
        status, comment = taking.finish()
        if comment.endswith(AGAIN_LATER):
            raise Unreachable(f"what {self._service.name} sends cannot be kept: {comment}")
        if status == SUCCESS:
            self.taken.add(self._uid)
        else:
            self.refused[self._uid] = f"0x{status:04X} {comment}"

    def _over(self) -> None:
        self.is_over = True


def _meta(head: bytes, service: WebService) -> FileMetaDataset:
    try:
        meta = dcmread(BytesIO(head)).file_meta
        named = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID
    except Exception as error:  # whatever pydicom raises for what a stranger has sent
        raise PeerFailure(f"{service.words} sent a part whose File Meta Information cannot be read") from error
    if not all(UID_PATTERN.fullmatch(str(uid)) for uid in named):
        raise PeerFailure(f"{service.words} sent a part whose File Meta Information names no UIDs")
    return meta
