"""Every message follows the schema of PS3.15 A.5.1, whatever names come in, and says who did what to whose images."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from dicom_node.audit import NODE_AUTHENTICATION, Author, Outcome, Party, Patient, Study

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).with_name("audit.rng")))
AUTHOR = Author("QSMNODE", "10.1.2.1", "QSMNODE@node", "site")
SCANNER = Party("MR1", "10.1.2.3")
JANE = Patient("4711", "Doe^Jane")
STUDY = Study("1.2.3", (("1.2.840.10008.5.1.4.1.1.4", 12),), "A1")


def parsed(message: bytes) -> Any:
    document = etree.fromstring(message)
    SCHEMA.assertValid(document)
    return document


def attributes(message: bytes, path: str, name: str) -> list[str]:
    return [str(found.get(name)) for found in parsed(message).findall(path)]


def test_start_and_stop_are_activities_of_an_application() -> None:
    for started, kind in ((True, "110120"), (False, "110121")):
        message = AUTHOR.activity(0.5, started)
        assert attributes(message, "EventIdentification/EventID", "csd-code") == ["110100"]
        assert attributes(message, "EventIdentification/EventTypeCode", "csd-code") == [kind]
        assert attributes(message, "EventIdentification", "EventDateTime") == ["1970-01-01T00:00:00.500+00:00"]
        assert attributes(message, "ActiveParticipant/RoleIDCode", "csd-code") == ["110150"]
        assert attributes(message, "ActiveParticipant", "AlternativeUserID") == ["AETITLES=QSMNODE"]
        assert attributes(message, "AuditSourceIdentification", "AuditEnterpriseSiteID") == ["site"]


def test_a_stranger_is_a_security_alert_with_the_reason() -> None:
    message = AUTHOR.alert(0.0, Party("STRANGER", "10.9.9.9"), NODE_AUTHENTICATION, "no peer has this AE title")
    assert attributes(message, "EventIdentification/EventID", "csd-code") == ["110113"]
    assert attributes(message, "EventIdentification/EventTypeCode", "csd-code") == ["110126"]
    assert attributes(message, "EventIdentification", "EventOutcomeIndicator") == ["4"]
    assert attributes(message, "ActiveParticipant", "UserIsRequestor") == ["false", "false"]
    [detail] = parsed(message).findall("ParticipantObjectIdentification/ParticipantObjectDetail")
    assert base64.b64decode(detail.get("value")) == b"no peer has this AE title"


def test_a_transfer_names_both_ends_the_study_and_the_patient() -> None:
    message = AUTHOR.transferred(0.0, SCANNER, AUTHOR.node, STUDY, JANE, requestor=SCANNER)
    assert attributes(message, "EventIdentification", "EventActionCode") == ["C"]
    assert attributes(message, "ActiveParticipant/RoleIDCode", "csd-code") == ["110153", "110152"]
    assert attributes(message, "ActiveParticipant", "NetworkAccessPointID") == ["10.1.2.3", "10.1.2.1"]
    assert attributes(message, "ParticipantObjectIdentification", "ParticipantObjectID") == ["1.2.3", "4711"]
    assert attributes(message, ".//SOPClass", "NumberOfInstances") == ["12"]
    assert attributes(message, ".//Accession", "Number") == ["A1"]
    assert parsed(message).findtext("ParticipantObjectIdentification[2]/ParticipantObjectName") == "Doe^Jane"


def test_what_is_sent_is_read_and_a_failure_has_its_outcome() -> None:
    pacs = Party("PACS", "pacs.example")
    assert parsed(AUTHOR.transferring(0.0, AUTHOR.node, pacs, [STUDY], JANE)) is not None
    message = AUTHOR.transferred(
        *(0.0, AUTHOR.node, pacs, STUDY, JANE),
        requestor=AUTHOR.node,
        outcome=Outcome.MINOR_FAILURE,
        description="3 of 12 instances were not stored",
    )
    assert attributes(message, "EventIdentification", "EventActionCode") == ["R"]
    assert attributes(message, "ActiveParticipant", "UserIsRequestor") == ["true", "false"]
    assert attributes(message, "ActiveParticipant", "NetworkAccessPointTypeCode") == ["2", "1"]
    assert (
        parsed(message).findtext("EventIdentification/EventOutcomeDescription") == "3 of 12 instances were not stored"
    )


def test_a_query_is_kept_as_it_came() -> None:
    query = b"\x08\x00\x52\x00"
    message = AUTHOR.queried(0.0, SCANNER, AUTHOR.node, "1.2.840.10008.5.1.4.1.2.2.1", query, "1.2.840.10008.1.2")
    assert attributes(message, "EventIdentification/EventID", "csd-code") == ["110112"]
    assert attributes(message, "ActiveParticipant/RoleIDCode", "csd-code") == ["110153", "110152"]
    [asked] = parsed(message).findall("ParticipantObjectIdentification")
    assert asked.get("ParticipantObjectID") == "1.2.840.10008.5.1.4.1.2.2.1"
    assert base64.b64decode(asked.findtext("ParticipantObjectQuery")) == query
    [syntax] = asked.findall("ParticipantObjectDetail")
    assert (syntax.get("type"), base64.b64decode(syntax.get("value"))) == ("TransferSyntax", b"1.2.840.10008.1.2")


def test_a_query_by_web_is_kept_with_its_address() -> None:
    archive = Party("", "archive.example", "https://archive.example/dicom-web")
    message = AUTHOR.searched(0.0, AUTHOR.node, archive, archive.user, "level=STUDY&PatientID=4711")
    assert attributes(message, "ActiveParticipant", "UserIsRequestor") == ["true", "false"]
    [asked] = parsed(message).findall("ParticipantObjectIdentification")
    assert asked.get("ParticipantObjectID") == "https://archive.example/dicom-web"
    assert asked.find("ParticipantObjectIDTypeCode").get("csd-code") == "12"
    assert base64.b64decode(asked.findtext("ParticipantObjectQuery")) == b"level=STUDY&PatientID=4711"


def test_an_export_names_person_process_media_study_and_patient_and_says_that_it_names_nobody() -> None:
    """Table A.5.3.4-1: one requestor, both person and process as sources, one medium."""
    message = AUTHOR.exported(0.0, "anna", "file:///mnt/cohort", STUDY, JANE)
    assert attributes(message, "EventIdentification/EventID", "csd-code") == ["110106"]
    assert attributes(message, "EventIdentification", "EventActionCode") == ["R"]
    assert attributes(message, "ActiveParticipant", "UserIsRequestor") == ["true", "false", "false"]
    assert attributes(message, "ActiveParticipant", "UserID")[::2] == ["anna", "file:///mnt/cohort"]
    assert attributes(message, "ActiveParticipant/RoleIDCode", "csd-code") == ["110153", "110153", "110152", "110154"]
    assert attributes(message, "ActiveParticipant/MediaIdentifier/MediaType", "csd-code") == ["110037"]
    assert attributes(message, "ParticipantObjectIdentification", "ParticipantObjectID") == ["1.2.3", "4711"]
    assert [found.text for found in parsed(message).iter("Anonymized")] == ["true"]


@given(words=st.lists(st.text(max_size=40), min_size=6, max_size=6))
def test_no_name_breaks_the_schema(words: list[str]) -> None:
    title, address, reason, patient, name, accession = words
    caller = Party(title, address)
    parsed(AUTHOR.alert(0.0, caller, NODE_AUTHENTICATION, reason))
    parsed(
        AUTHOR.transferred(
            *(0.0, caller, AUTHOR.node, Study("1.2", (), accession), Patient(patient, name)), requestor=caller
        )
    )


@pytest.mark.parametrize("broken", ["EventIdentification", "ActiveParticipant", "AuditSourceIdentification"])
def test_the_schema_notices_what_is_missing(broken: str) -> None:
    document = etree.fromstring(AUTHOR.activity(0.0, started=True))
    document.remove(document.find(broken))
    assert not SCHEMA.validate(document)
