"""A small storage and query SCP that stands in for a PACS: C-ECHO, C-STORE of every storage class, C-FIND (study root).

It keeps what it is sent in a folder and an index in memory.  A repeated instance is answered 0x0000, counted and not
written again.  Not an archive to keep patients in.
"""

from __future__ import annotations

import fnmatch
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind  # type: ignore[attr-defined]  # made at import

from dicom_node.identity import VERIFICATION

_TRANSFER_SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
]
_PENDING, _SUCCESS, _CANNOT_UNDERSTAND, _IDENTIFIER_MISMATCH = 0xFF00, 0x0000, 0xC000, 0xA900
_UNIQUE_KEY = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}


class Archive:
    """Runs inside `with`.  port 0 takes a free one.

    answer: asked before an instance is kept; a status other than 0x0000 is returned to the sender and nothing is kept
    (to play a full or a picky archive).  sent: how often each SOP Instance UID was accepted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str = "ARCHIVE",
        host: str = "127.0.0.1",
        port: int = 0,
        answer: Callable[[str], int] = lambda sop_instance_uid: _SUCCESS,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self.sent: Counter[str] = Counter()
        self._answer = answer
        self._headers: dict[str, Dataset] = {}
        self._lock = threading.Lock()
        self._entity = AE(ae_title)
        self._entity.maximum_pdu_size = 2**17
        self._entity.add_supported_context(VERIFICATION)
        self._entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
        for context in AllStoragePresentationContexts:
            self._entity.add_supported_context(str(context.abstract_syntax), _TRANSFER_SYNTAXES)

    def __enter__(self) -> Archive:
        self.folder.mkdir(parents=True, exist_ok=True)
        server = self._entity.start_server((self.host, self.port), block=False, evt_handlers=self._handlers())
        assert server is not None
        self.port = int(server.server_address[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entity.shutdown()

    def _handlers(self) -> list[Any]:
        return [
            (evt.EVT_C_ECHO, lambda event: _SUCCESS),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
        ]

    @property
    def paths(self) -> dict[str, Path]:
        """SOP Instance UID → file, of everything that is held."""
        with self._lock:
            return {uid: self._path(uid) for uid in self._headers}

    def _path(self, sop_instance_uid: str) -> Path:
        return self.folder / f"{sop_instance_uid}.dcm"

    def _store(self, event: evt.Event) -> int:
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        if not uid.replace(".", "").isdigit():
            return _CANNOT_UNDERSTAND
        status = self._answer(uid)
        if status != _SUCCESS:
            return status
        with self._lock:
            self.sent[uid] += 1
            if uid not in self._headers:
                part = self._path(uid).with_suffix(".part")
                part.write_bytes(event.encoded_dataset())
                header = dcmread(part, stop_before_pixels=True)
                part.rename(self._path(uid))
                self._headers[uid] = header
        return _SUCCESS

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        unique_key = _UNIQUE_KEY.get(query.get("QueryRetrieveLevel", ""))
        if unique_key is None:
            yield _IDENTIFIER_MISMATCH, None
            return
        with self._lock:
            headers = list(self._headers.values())
        found = {header[unique_key].value: header for header in headers if _matches(header, query)}
        for header in found.values():
            answer = Dataset()
            answer.SpecificCharacterSet = header.get("SpecificCharacterSet", "ISO_IR 100")
            for element in query:
                if element.keyword in header:
                    answer[element.tag] = header[element.tag]
                elif element.keyword != "QueryRetrieveLevel":
                    answer.add_new(element.tag, element.VR, None)
            answer.QueryRetrieveLevel = query.QueryRetrieveLevel
            answer.RetrieveAETitle = self.ae_title
            yield _PENDING, answer


def _matches(header: Dataset, query: Dataset) -> bool:
    """Universal, single value, list of UIDs, wild card and range matching (PS3.4 C.2.2.2)."""
    for element in query:
        if element.is_empty or element.VR == "SQ" or element.keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
            continue
        keyword = "Modality" if element.keyword == "ModalitiesInStudy" else element.keyword
        wanted, found = element.value, str(header.get(keyword, ""))
        if element.VR == "UI":
            matched = found in ([wanted] if isinstance(wanted, str) else list(wanted))
        elif element.VR in ("DA", "TM") and "-" in str(wanted):
            first, _, last = str(wanted).partition("-")
            matched = (not first or found >= first) and (not last or found <= last)
        else:
            matched = fnmatch.fnmatchcase(found, str(wanted))
        if not matched:
            return False
    return True
