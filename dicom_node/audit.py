"""Audit messages as XML (PS3.15 A.5): what a hospital's audit repository is told, by the schema of A.5.1.

Unlike logs and metrics these name patients, because that is what they are for (by A.5.3.7 a patient takes part in every
transfer).  They go to the repository of the configuration and nowhere else.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


@dataclass(frozen=True)
class Code:
    """A CodedValueType (A.5.1)."""

    code: str
    meaning: str
    system: str = "DCM"


APPLICATION_ACTIVITY = Code("110100", "Application Activity")
BEGIN_TRANSFERRING = Code("110102", "Begin Transferring DICOM Instances")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
EXPORT = Code("110106", "Export")
QUERY = Code("110112", "Query")
SECURITY_ALERT = Code("110113", "Security Alert")
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
RESTRICTED_FUNCTION = Code("110132", "Use of Restricted Function")
APPLICATION = Code("110150", "Application")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")
DESTINATION_MEDIA = Code("110154", "Destination Media")
MEDIA_URI = Code("110037", "URI")
STUDY_INSTANCE_UID = Code("110180", "Study Instance UID")
SOP_CLASS_UID = Code("110181", "SOP Class UID")
NODE_ID = Code("110182", "Node ID")
PATIENT_NUMBER = Code("2", "Patient Number", "RFC-3881")
URI = Code("12", "URI", "RFC-3881")

UNKNOWN = "unknown"
"""For what the schema asks and nobody has said."""


class Outcome(StrEnum):
    """EventOutcomeIndicator (A.5.2)."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"


@dataclass(frozen=True)
class Party:
    """An application entity that takes part.  address: IP address or host name, "" where it is not known."""

    ae_title: str
    address: str = ""
    user: str = ""
    """UserID (A.5.2.1); of a peer its AE title stands in for it."""


@dataclass(frozen=True)
class Patient:
    id: str
    name: str


@dataclass(frozen=True)
class Study:
    """instances: by SOP class, how many."""

    uid: str
    instances: tuple[tuple[str, int], ...]
    accession: str = ""


class Author:
    """Writes the messages of one node.  source: AuditSourceID.  site: AuditEnterpriseSiteID, "" for none."""

    def __init__(self, ae_title: str, address: str, source: str, site: str = "") -> None:
        self.node = Party(ae_title, address, str(os.getpid()))
        self._source = source
        self._site = site

    def activity(self, at: float, started: bool) -> bytes:
        """The node has started, or is about to end (A.5.3.1)."""
        kind = APPLICATION_START if started else APPLICATION_STOP
        message = self._message(APPLICATION_ACTIVITY, "E", at, Outcome.SUCCESS, kind)
        _participant(message, self.node, APPLICATION, is_requestor=False)
        return self._finished(message, ())

    def alert(self, at: float, caller: Party, kind: Code, reason: str) -> bytes:
        """Somebody was not let in, or asked for what it may not (Security Alert, A.5.3.11)."""
        message = self._message(SECURITY_ALERT, "E", at, Outcome.MINOR_FAILURE, kind, reason)
        _participant(message, self.node, APPLICATION, is_requestor=False)
        _participant(message, caller, SOURCE, is_requestor=False)  # table A.5.3.11-1: shall be
        who = caller.address or caller.ae_title or UNKNOWN
        alert = _object(NODE_ID, who, "2", "13", caller.ae_title or who)
        ET.SubElement(alert, "ParticipantObjectDetail", type="Alert Description", value=_base64(reason))
        return self._finished(message, [alert])

    def transferring(
        self, at: float, source: Party, destination: Party, studies: Sequence[Study], patient: Patient
    ) -> bytes:
        """Instances are about to be sent (A.5.3.3)."""
        message = self._message(BEGIN_TRANSFERRING, "E", at, Outcome.SUCCESS)
        self._both(message, source, destination, requestor=source)
        return self._finished(message, [*map(_study, studies), _patient(patient)])

    def transferred(
        self,
        at: float,
        source: Party,
        destination: Party,
        study: Study,
        patient: Patient,
        *,
        requestor: Party,
        outcome: Outcome = Outcome.SUCCESS,
        description: str = "",
    ) -> bytes:
        """Instances of one study were sent, by whomever (A.5.3.7)."""
        action = "C" if destination == self.node else "R"
        message = self._message(INSTANCES_TRANSFERRED, action, at, outcome, description=description)
        self._both(message, source, destination, requestor)
        return self._finished(message, [_study(study), _patient(patient)])

    def queried(
        self, at: float, source: Party, destination: Party, sop_class: str, query: bytes, transfer_syntax: str
    ) -> bytes:
        """One has asked another what it holds (A.5.3.10).  query: the identifier in that syntax."""
        syntax = ET.Element("ParticipantObjectDetail", type="TransferSyntax", value=_base64(transfer_syntax))
        return self._query(at, source, destination, _object(SOP_CLASS_UID, sop_class, "2", "3"), query, syntax)

    def searched(self, at: float, source: Party, destination: Party, url: str, query: str) -> bytes:
        """The same by QIDO-RS, which A.5.3.10 counts among other queries.  url: of the service."""
        return self._query(at, source, destination, _object(URI, url, "2", "3"), query.encode())

    def _query(
        self, at: float, source: Party, destination: Party, asked: ET.Element, query: bytes, *details: ET.Element
    ) -> bytes:
        message = self._message(QUERY, "E", at, Outcome.SUCCESS)
        self._both(message, source, destination, requestor=source)
        ET.SubElement(asked, "ParticipantObjectQuery").text = base64.b64encode(query).decode()
        asked.extend(details)
        return self._finished(message, [asked])

    def exported(self, at: float, person: str, media: str, study: Study, patient: Patient) -> bytes:
        """Somebody has written what names no patient to a place that the node does not guard (A.5.3.4).

        media: a URI, as in PS3.17 WW.3.
        """
        message = self._message(EXPORT, "R", at, Outcome.SUCCESS)
        _participant(message, Party("", user=person), SOURCE, is_requestor=True)
        _participant(message, self.node, SOURCE, is_requestor=False)
        place = _participant(message, Party("", user=media), DESTINATION, is_requestor=False)
        _coded(place, "RoleIDCode", DESTINATION_MEDIA)
        _coded(ET.SubElement(place, "MediaIdentifier"), "MediaType", MEDIA_URI)
        exported = _study(study)
        description = exported.find("ParticipantObjectDescription")
        assert description is not None
        ET.SubElement(description, "Anonymized").text = "true"
        return self._finished(message, [exported, _patient(patient)])

    def _both(self, message: ET.Element, source: Party, destination: Party, requestor: Party) -> None:
        _participant(message, source, SOURCE, is_requestor=source == requestor)
        _participant(message, destination, DESTINATION, is_requestor=destination == requestor)

    def _message(
        self,
        event: Code,
        action: str,
        at: float,
        outcome: Outcome,
        kind: Code | None = None,
        description: str = "",
    ) -> ET.Element:
        message = ET.Element("AuditMessage")
        identification = ET.SubElement(
            message,
            "EventIdentification",
            EventActionCode=action,
            EventDateTime=datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds"),
            EventOutcomeIndicator=outcome.value,
        )
        _coded(identification, "EventID", event)
        if kind:
            _coded(identification, "EventTypeCode", kind)
        if description:
            ET.SubElement(identification, "EventOutcomeDescription").text = _printable(description)
        return message

    def _finished(self, message: ET.Element, objects: Iterable[ET.Element]) -> bytes:
        """Source and objects come last (A.5.1)."""
        source = ET.SubElement(message, "AuditSourceIdentification", AuditSourceID=self._source)
        if self._site:
            source.set("AuditEnterpriseSiteID", self._site)
        ET.SubElement(source, "AuditSourceTypeCode", {"csd-code": "4"})  # application server process
        message.extend(objects)
        encoded: bytes = ET.tostring(message, encoding="UTF-8", xml_declaration=True)
        return encoded


def _participant(message: ET.Element, party: Party, role: Code, *, is_requestor: bool) -> ET.Element:
    attributes = {"UserID": _printable(party.user or party.ae_title or party.address or UNKNOWN)}
    if party.ae_title:
        attributes["AlternativeUserID"] = f"AETITLES={_printable(party.ae_title)}"
    attributes["UserIsRequestor"] = str(is_requestor).lower()
    if party.address:
        attributes["NetworkAccessPointID"] = _printable(party.address)
        attributes["NetworkAccessPointTypeCode"] = "2" if _is_address(party.address) else "1"
    made = ET.SubElement(message, "ActiveParticipant", attributes)
    _coded(made, "RoleIDCode", role)
    return made


def _study(study: Study) -> ET.Element:
    made = _object(STUDY_INSTANCE_UID, study.uid, "2", "3", "DICOM study")
    description = ET.SubElement(made, "ParticipantObjectDescription")
    if study.accession:
        ET.SubElement(description, "Accession", Number=_printable(study.accession))
    for sop_class, count in study.instances:
        ET.SubElement(description, "SOPClass", UID=sop_class, NumberOfInstances=str(count))
    return made


def _patient(patient: Patient) -> ET.Element:
    return _object(PATIENT_NUMBER, patient.id or UNKNOWN, "1", "1", patient.name or UNKNOWN)


def _object(kind: Code, identifier: str, type_code: str, role: str, name: str = "") -> ET.Element:
    """name: "" where a query follows in its place."""
    made = ET.Element(
        "ParticipantObjectIdentification",
        ParticipantObjectID=_printable(identifier),
        ParticipantObjectTypeCode=type_code,
        ParticipantObjectTypeCodeRole=role,
    )
    _coded(made, "ParticipantObjectIDTypeCode", kind)
    if name:
        ET.SubElement(made, "ParticipantObjectName").text = _printable(name)
    return made


def _coded(parent: ET.Element, name: str, code: Code) -> None:
    attributes = {"csd-code": code.code, "codeSystemName": code.system, "originalText": code.meaning}
    ET.SubElement(parent, name, attributes)


def _printable(text: str) -> str:
    """XML 1.0 has no place for most control characters, and whoever calls chooses them."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
