"""Answer: the Query/Retrieve SCP (PS3.4 C), C-FIND, C-MOVE and C-GET over the catalogue, patient and study root.

Each answer waits until the peer has taken those before (`dicom_node.guard`), so that a slow one costs no memory.  A
C-MOVE goes to known peers only; what is handed out is looked up by its UID, and no part of a request ever becomes a
path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog
from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    DeflatedExplicitVRLittleEndian,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    ParametricMapStorage,
    PseudoColorSoftcopyPresentationStateStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pydicom.valuerep import VR
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_FIND, C_GET, C_MOVE
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.audit import Party
from dicom_node.call import Destination, SendSettings, tune, why_not
from dicom_node.catalogue import LEVELS, UNIQUE_KEY, Catalogue, Held
from dicom_node.convert.header import MALFORMED
from dicom_node.peers import Peer, Peers
from dicom_node.receive import Service
from dicom_node.suboperations import Handed, OnHanded, Suboperations

PATIENT_ROOT = {"1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.1.3"}
STUDY_ROOT = {"1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"}
"""C-FIND, C-MOVE and C-GET of each information model."""
RESULT_CLASSES = (
    SegmentationStorage,
    Comprehensive3DSRStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    EncapsulatedPDFStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    PseudoColorSoftcopyPresentationStateStorage,
)
"""Handed out by C-GET, but not taken."""
_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)

PENDING, CANCELLED = 0xFF00, 0xFE00
NOT_YET_FOUND, NOT_YET_COUNTED = 0xA700, 0xA701
"""Out of resources (PS3.4 C.4.1.1.4; C.4.2.1.5 and C.4.3.1.4: unable to calculate number of matches)."""
NOT_YET = "the images here are still being listed: ask again in a while"
"""At most 64 characters (LO)."""
DOES_NOT_MATCH_MODEL, CANNOT_BE_PROCESSED = 0xA900, 0xC000
MOST_SUBOPERATIONS = 65535
"""More cannot be counted in a response (US)."""
_MOST_CONTEXTS = 128
_LARGEST_IDENTIFIER = 2**20
"""Bytes; a list of 10,000 UIDs has about 600 kB."""
_READ_WHEN_ENCODED = 2**16
"""Bytes; longer values are read when they are encoded, so that an object is in memory once."""

log = structlog.get_logger(__name__)

Answer = tuple[int, Dataset | None]


class Answerer:
    """Answers what peers with the rights ask; the gate has looked at those.

    caller: whose association it is.  on_handed: told at the end of each C-GET and C-MOVE; it must not raise.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        peers: Peers,
        settings: SendSettings,
        caller: Callable[[Association], Peer],
        on_handed: OnHanded = lambda handed: None,
    ) -> None:
        self._catalogue = catalogue
        self._peers = peers
        self.renew(settings)
        self._caller = caller
        self._on_handed = on_handed

    def renew(self, settings: SendSettings) -> None:
        """The configuration was read anew."""
        self._settings = settings

    def service(self) -> Service:
        return Service(
            dict.fromkeys([*PATIENT_ROOT, *STUDY_ROOT], _UNCOMPRESSED),
            [(evt.EVT_C_FIND, self._find), (evt.EVT_C_MOVE, self._move), (evt.EVT_C_GET, self._get)],
            returns=dict.fromkeys(RESULT_CLASSES, (*_UNCOMPRESSED, DeflatedExplicitVRLittleEndian)),
            refusal=self._refusal,
        )

    def _refusal(self, request: Any) -> tuple[int, str] | None:
        """While the list is made, after a start or the loss of the database: a part of a study is taken for all of it.

        Before the handlers, for a C-MOVE that they refuse has opened an association to its destination already.
        """
        if self._catalogue.is_whole or not isinstance(request, C_FIND | C_GET | C_MOVE):
            return None
        status = NOT_YET_FOUND if isinstance(request, C_FIND) else NOT_YET_COUNTED
        log.info("asked_too_early", status=f"0x{status:04X}")
        return status, NOT_YET

    def _find(self, event: evt.Event) -> Iterator[Answer]:
        status, level, query = _read(event)
        if status:
            yield status, None
            return
        count = 0
        for found in self._catalogue.find(level, query):
            if event.is_cancelled:
                yield CANCELLED, None
                return
            count += 1
            yield PENDING, self._identifier(level, query, found)
        log.info("found", ae_title=event.assoc.requestor.ae_title, level=level, count=count)

    def _move(self, event: evt.Event) -> Iterator[Any]:
        """First where to, then how many, then each: what pynetdicom expects of its handler."""
        title = str(event.move_destination).strip()
        peer = self._peers.called(title)
        if peer is None:
            log.warning("move_destination_unknown", destination=title)
            yield None, None
            return
        status, held = self._select(event)
        caller = self._caller(event.assoc)
        # What one of them may not have gets no context: it fails and is named, as in a C-GET.
        contexts = _contexts([one for one in held if all(who.may_have(one.sop_class_uid) for who in (caller, peer))])
        if len(contexts) > _MOST_CONTEXTS:
            status = CANNOT_BE_PROCESSED
        tls = (self._settings.tls.client(), peer.certificate) if self._settings.tls and peer.certificate else None
        if peer.certificate and tls is None:
            log.warning(
                "move_destination_not_callable", destination=title, reason="this node has no certificate: [tls]"
            )
            yield None, None
            return
        target = Destination(peer.name, peer.address, peer.port, peer.ae_title, peer.certificate)
        operations = Suboperations(_caller(event).ae_title)
        begun: list[Association] = []

        def begin(step: evt.Event) -> None:
            """The first that is told of an association, whether a connection can be had or not."""
            begun[:] = [step.assoc]

        def opened(connection: evt.Event) -> None:
            tune(connection, self._settings)
            operations.go_over(connection.assoc)

        def away() -> str:
            if not event.assoc.is_established:
                return "the caller has gone"
            return why_not(begun[0] if begun else None, target, self._settings)

        handlers = [(evt.EVT_FSM_TRANSITION, begin), (evt.EVT_CONN_OPEN, opened)]
        yield peer.address, peer.port, {"contexts": contexts, "tls_args": tls, "evt_handlers": handlers}
        yield from self._hand_out(event, status, held, operations, Party(peer.ae_title, peer.address), away)

    def _get(self, event: evt.Event) -> Iterator[Any]:
        status, held = self._select(event)
        operations = Suboperations(_caller(event).ae_title)
        operations.go_over(event.assoc)
        try:
            yield from self._hand_out(event, status, held, operations, _caller(event))
        finally:
            operations.leave(event.assoc)

    def _hand_out(
        self,
        event: evt.Event,
        status: int,
        held: Sequence[Held],
        operations: Suboperations,
        to: Party,
        away: Callable[[], str] = lambda: "the caller has gone",
    ) -> Iterator[Any]:
        """pynetdicom ends it where it stands when the caller has gone, or there is no way to the destination.

        away: why nothing was sent at all.
        """
        if status:
            yield 1
            yield status, None
            return
        wanted, begun = held, False
        try:
            yield len(held)
            begun = True
            with self._catalogue.kept(held) as kept:
                for number, one in enumerate(kept):
                    if event.is_cancelled:
                        wanted = held[:number]
                        yield CANCELLED, None
                        return
                    yield PENDING, _dataset(one)
        finally:
            stored = [one for one in wanted if operations.stored(one)]
            failed = [one for one in wanted if not operations.stored(one)]
            why = operations.why(len(failed)) if begun or not failed else away()
            self._tell(Handed(_caller(event), to, stored, failed, why))

    def _tell(self, handed: Handed) -> None:
        told = {
            "ae_title": handed.caller.ae_title,
            "to": handed.destination.ae_title,
            "stored": len(handed.stored),
            "failed": len(handed.failed),
        }
        if handed.failed:
            log.warning("handed_out", **told, reason=handed.why)
        else:
            log.info("handed_out", **told)
        self._on_handed(handed)

    def _select(self, event: evt.Event) -> tuple[int, list[Held]]:
        """Raises nothing: a status, 0 for one that is to be served, and what was asked for."""
        status, level, query = _read(event)
        if status:
            return status, []
        if not query.get(UNIQUE_KEY[level]):
            return DOES_NOT_MATCH_MODEL, []
        held = self._catalogue.select(level, query)
        return (CANNOT_BE_PROCESSED if len(held) > MOST_SUBOPERATIONS else 0), held

    def _identifier(self, level: str, query: Dataset, found: Mapping[str, str]) -> Dataset:
        answer = Dataset()
        answer.SpecificCharacterSet = "ISO_IR 192"
        for element in query:
            if element.keyword in found:
                answer.add(_element(element.tag, found[element.keyword]))
            elif element.keyword not in ("QueryRetrieveLevel", "SpecificCharacterSet"):
                answer.add_new(element.tag, element.VR, None)
        setattr(answer, UNIQUE_KEY[level], found[UNIQUE_KEY[level]])
        answer.QueryRetrieveLevel = level
        answer.RetrieveAETitle = self._settings.ae_title
        answer.InstanceAvailability = "ONLINE"
        return answer


def _caller(event: evt.Event) -> Party:
    return Party(str(event.assoc.requestor.ae_title).strip(), str(event.assoc.requestor.address))


def _read(event: evt.Event) -> tuple[int, str, Dataset]:
    """A status, 0 if the query can be served; its level; the query."""
    if len(event.request.Identifier.getvalue()) > _LARGEST_IDENTIFIER:  # type: ignore[union-attr]  # it has one
        return CANNOT_BE_PROCESSED, "", Dataset()
    try:
        query = event.identifier
        for _ in query.iterall():  # pydicom reads an element when it is touched, and raises then
            pass
    except MALFORMED as error:
        log.warning("identifier_unreadable", ae_title=event.assoc.requestor.ae_title, error=type(error).__name__)
        return CANNOT_BE_PROCESSED, "", Dataset()
    query.pop("QueryRetrieveView", None)
    level = str(query.get("QueryRetrieveLevel", ""))
    of_patients = event.context.abstract_syntax in PATIENT_ROOT
    if level not in LEVELS or (level == "PATIENT" and not of_patients):
        return DOES_NOT_MATCH_MODEL, "", query
    return 0, level, query


def _element(tag: BaseTag, found: str) -> DataElement:
    """What is held as text, in the form that its VR is encoded from; empty if it is none that can be told."""
    vr = dictionary_VR(tag)
    try:
        if vr == VR.US:
            return DataElement(tag, vr, _unsigned_short(found))
        return DataElement(tag, vr, found or None)
    except (ValueError, OverflowError):  # IS, DS and US that are no numbers
        return DataElement(tag, vr, None)


def _unsigned_short(found: str) -> int | None:
    value = int(found) if found else None
    if value is not None and not 0 <= value < 2**16:
        raise ValueError(f"{value} is no unsigned short")
    return value


def _dataset(held: Held) -> Dataset:
    """The object; where its file is gone or damaged, or holds another by now, one that fails to be sent and is named in
    the response.
    """
    try:
        # Of a deflated one pydicom would look for them in the file as it is.
        is_deflated = held.transfer_syntax_uid == DeflatedExplicitVRLittleEndian
        found = dcmread(held.path, defer_size=None if is_deflated else _READ_WHEN_ENCODED)
        if found.SOPInstanceUID == held.sop_instance_uid:
            return found
        reason = "it holds another object"
    except (OSError, InvalidDicomError, AttributeError) as error:
        reason = type(error).__name__
    log.error("not_handed_out", sop_instance_uid=held.sop_instance_uid, error=reason)
    failing = Dataset()
    failing.SOPInstanceUID = held.sop_instance_uid
    return failing


def _contexts(held: Sequence[Held]) -> list[PresentationContext]:
    """One for each class and syntax that is held, and the default one for what is not compressed."""
    wanted: dict[tuple[str, str], None] = {}
    for one in held:
        wanted[one.sop_class_uid, one.transfer_syntax_uid] = None
        if not UID(one.transfer_syntax_uid).is_compressed:
            wanted[one.sop_class_uid, ImplicitVRLittleEndian] = None
    return [build_context(sop_class, syntax) for sop_class, syntax in wanted] or [build_context("1.2.840.10008.1.1")]
