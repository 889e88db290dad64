"""The witness: turns what happens on associations, and what is exported, into audit messages for the trail.

It stands beside the line: what it is handed, it passes on unchanged, and what it notes never holds anybody up.  Headers
of files are read when a message is made, on the trail's thread.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dsutils import encode

from dicom_node.audit import NODE_AUTHENTICATION, RESTRICTED_FUNCTION, Author, Outcome, Party, Patient, Study
from dicom_node.call import Destination, SendSettings
from dicom_node.catalogue import Held
from dicom_node.contacts import Contact, Event, Transfer
from dicom_node.deliver import SendFunction
from dicom_node.errors import PeerFailure
from dicom_node.receive import Service
from dicom_node.seek import FIND, OnQuery, as_identifier
from dicom_node.send import Delivery
from dicom_node.suboperations import Handed
from dicom_node.trail import Trail
from dicom_node.web import WebService

_IMPLICIT = str(ImplicitVRLittleEndian)
_HEADER = ("PatientID", "PatientName", "AccessionNumber", "StudyInstanceUID")


class Witness:
    """clock: s since the epoch."""

    def __init__(self, author: Author, trail: Trail, clock: Callable[[], float]) -> None:
        self._author = author
        self._trail = trail
        self._clock = clock

    def started(self) -> None:
        at = self._clock()
        self._trail.tell(lambda: self._author.activity(at, started=True))

    def stopping(self) -> None:
        at = self._clock()
        self._trail.tell(lambda: self._author.activity(at, started=False))

    def contact(self, contact: Contact) -> None:
        """For the receiver's `on_contact`: who was rejected, or asked for what it may not, and what was brought."""
        caller = Party(contact.calling_ae_title, contact.host)
        if contact.event is Event.REJECTED:
            self._trail.tell(lambda: self._author.alert(contact.at, caller, NODE_AUTHENTICATION, contact.reason))
        if contact.denied:
            why = f"{contact.denied} {'request' if contact.denied == 1 else 'requests'}: {contact.reason}"
            self._trail.tell(lambda: self._author.alert(contact.at, caller, RESTRICTED_FUNCTION, why))
        for uid, transfer in contact.transfers.items():
            self._trail.tell(partial(self._brought, contact, caller, uid, transfer))

    def _brought(self, contact: Contact, caller: Party, uid: str, transfer: Transfer) -> bytes:
        header = _header(transfer.path)
        study = Study(uid, tuple(sorted(transfer.sop_classes.items())), _text(header, "AccessionNumber"))
        node = self._author.node
        requestor = node if contact.event is Event.FETCHED else caller
        return self._author.transferred(contact.at, caller, node, study, _patient(header), requestor=requestor)

    def watching(self, function: SendFunction, target: Destination | WebService) -> SendFunction:
        """The same function; what is sent by it is noted, before and after."""
        destination = _party(target)

        def send(files: Sequence[Path], to: Any, settings: SendSettings) -> Iterator[Delivery]:
            began, stored, failure = self._clock(), list[Path](), ""
            self._trail.tell(lambda: self._sends(began, destination, files))
            try:
                for delivery in function(files, to, settings):
                    if delivery.outcome == "stored":
                        stored.append(delivery.path)
                    yield delivery
            except PeerFailure as error:
                failure = str(error)
                raise
            finally:
                at, missing = self._clock(), len(files) - len(stored)
                if stored:
                    self._trail.tell(lambda: self._sent(at, destination, stored, Outcome.SUCCESS, ""))
                if missing:
                    why = failure or f"{missing} of {len(files)} instances were not stored"
                    left = [path for path in files if path not in set(stored)]
                    self._trail.tell(lambda: self._sent(at, destination, left, Outcome.MINOR_FAILURE, why))

        return send

    def _sends(self, at: float, destination: Party, files: Sequence[Path]) -> bytes:
        header = _header(files[0])
        study = Study(_text(header, "StudyInstanceUID"), _classes(files), _text(header, "AccessionNumber"))
        return self._author.transferring(at, self._author.node, destination, [study], _patient(header))

    def _sent(self, at: float, destination: Party, files: Sequence[Path], outcome: Outcome, description: str) -> bytes:
        header, node = _header(files[0]), self._author.node
        study = Study(_text(header, "StudyInstanceUID"), _classes(files), _text(header, "AccessionNumber"))
        return self._author.transferred(
            at, node, destination, study, _patient(header), requestor=node, outcome=outcome, description=description
        )

    def service(self, service: Service) -> Service:
        """The same service; what is asked by C-FIND is noted."""
        handlers = [
            (event, self._finding(handler) if event == evt.EVT_C_FIND else handler)
            for event, handler in service.handlers
        ]
        return replace(service, handlers=handlers)

    def _finding(self, handler: Callable[[evt.Event], Any]) -> Callable[[evt.Event], Any]:
        def find(event: evt.Event) -> Any:
            at, caller = self._clock(), _caller(event)
            request: Any = event.request
            sop_class, query = str(request.AffectedSOPClassUID), request.Identifier.getvalue()
            syntax = str(event.context.transfer_syntax)
            node = self._author.node
            self._trail.tell(lambda: self._author.queried(at, caller, node, sop_class, query, syntax))
            return handler(event)

        return find

    def asks(self, archive: Destination | WebService) -> OnQuery:
        """For `seek`: what the node itself asks of an archive, as an identifier or a line of a URL."""
        node, target = self._author.node, _party(archive)

        def asked(level: str, keys: Mapping[str, str]) -> None:
            at = self._clock()
            if isinstance(archive, WebService):
                query = urlencode({"level": level, **keys})
                self._trail.tell(lambda: self._author.searched(at, node, target, archive.url, query))
            else:
                self._trail.tell(lambda: self._author.queried(at, node, target, FIND, _encoded(level, keys), _IMPLICIT))

        return asked

    def exported(self, files: Sequence[Path], person: str, place: Path) -> None:
        """A result has left the node by somebody's hand, without its patient's name.  files: what it was made from."""
        at, header = self._clock(), _header(files[0])
        study = Study(_text(header, "StudyInstanceUID"), _classes(files), _text(header, "AccessionNumber"))
        media, patient = place.absolute().as_uri(), _patient(header)
        self._trail.tell(lambda: self._author.exported(at, person, media, study, patient))

    def handed(self, handed: Handed) -> None:
        """For the answerer's `on_handed`: what a peer got by C-GET or C-MOVE, and apart from it what it did not get."""
        at = self._clock()
        for outcome, those, why in (
            (Outcome.SUCCESS, handed.stored, ""),
            (Outcome.MINOR_FAILURE, handed.failed, handed.why),
        ):
            for uid in dict.fromkeys(held.study_instance_uid for held in those):
                of_study = [held for held in those if held.study_instance_uid == uid]
                self._trail.tell(partial(self._handed, at, handed, uid, of_study, outcome, why))

    def _handed(
        self, at: float, handed: Handed, uid: str, of_study: Sequence[Held], outcome: Outcome, why: str
    ) -> bytes:
        header = next((found for held in of_study if (found := _header(held.path))), Dataset())
        classes = Counter(held.sop_class_uid for held in of_study)
        study = Study(uid, tuple(sorted(classes.items())), _text(header, "AccessionNumber"))
        parties = self._author.node, handed.destination
        return self._author.transferred(
            at, *parties, study, _patient(header), requestor=handed.caller, outcome=outcome, description=why
        )


def _encoded(level: str, keys: Mapping[str, str]) -> bytes:
    encoded = encode(as_identifier(level, keys), is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


def _party(target: Destination | WebService) -> Party:
    if isinstance(target, Destination):
        return Party(target.ae_title, target.host)
    return Party("", urlsplit(target.url).hostname or "", target.url)


def _caller(event: evt.Event) -> Party:
    return Party(str(event.assoc.requestor.ae_title).strip(), str(event.assoc.requestor.address))


def _header(path: Path) -> Dataset:
    """Whose images a file holds; nothing where it is gone or cannot be read."""
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=list(_HEADER))
    except (OSError, InvalidDicomError):
        return Dataset()


def _classes(files: Sequence[Path]) -> tuple[tuple[str, int], ...]:
    """How many of each SOP class, by the files' meta information."""
    counts: defaultdict[str, int] = defaultdict(int)
    for path in files:
        try:
            counts[str(read_file_meta_info(path).MediaStorageSOPClassUID)] += 1
        except (OSError, InvalidDicomError, AttributeError):
            continue
    return tuple(sorted(counts.items()))


def _patient(header: Dataset) -> Patient:
    return Patient(_text(header, "PatientID"), _text(header, "PatientName"))


def _text(header: Dataset, keyword: str) -> str:
    try:
        return str(header.get(keyword, "") or "").strip()
    except Exception:  # noqa: BLE001 - a value in an undeclared character set must not cost the message
        return ""
