"""What happens on associations becomes audit messages that follow the schema, and is changed by it in nothing."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lxml import etree
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage, SegmentationStorage
from pynetdicom import evt
from pynetdicom.dsutils import decode

from dicom_node.audit import Author, Party
from dicom_node.call import Destination, SendSettings
from dicom_node.catalogue import Held
from dicom_node.contacts import Contact, Event, Transfer
from dicom_node.errors import PeerFailure
from dicom_node.receive import Service
from dicom_node.send import Delivery
from dicom_node.settings import Audit
from dicom_node.suboperations import Handed
from dicom_node.trail import Compose, Trail
from dicom_node.web import WebService
from dicom_node.witness import Witness
from tests.dicom_node.test_audit import SCHEMA
from tests.e2e.phantom import simple_head
from tests.simulation.siemens import write_siemens

SCANNER, PACS = "MR1", Destination("pacs", "10.1.2.9", 104, "PACS")


class Heard(Trail):
    """Makes each message at once, and keeps it."""

    def __init__(self) -> None:
        super().__init__(Audit())
        self.messages: list[Any] = []

    def tell(self, compose: Compose) -> None:
        message = etree.fromstring(compose())
        SCHEMA.assertValid(message)
        self.messages.append(message)

    def told(self, *names: str) -> list[tuple[str | None, ...]]:
        """Of each message the event, and the values of these attributes wherever they stand."""
        return [
            (
                message.find("EventIdentification/EventID").get("csd-code"),
                *(self._found(message, name) for name in names),
            )
            for message in self.messages
        ]

    @staticmethod
    def _found(message: Any, name: str) -> str:
        return " ".join(found.get(name) for found in message.iter() if found.get(name) is not None)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def witness(heard: Heard) -> Witness:
    return Witness(Author("QSMNODE", "10.1.2.1", "QSMNODE@node"), heard, lambda: 1000.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_siemens(simple_head(1, shape=(8, 8, 4)), tmp_path_factory.mktemp("study"))[:3]


def test_starting_and_stopping_are_told(heard: Heard, witness: Witness) -> None:
    witness.started()
    witness.stopping()
    kinds = [message.find("EventIdentification/EventTypeCode").get("csd-code") for message in heard.messages]
    assert kinds == ["110120", "110121"]


def test_a_stranger_is_an_alert_and_an_association_that_brought_nothing_is_none(heard: Heard, witness: Witness) -> None:
    witness.contact(Contact(Event.OPENED, "mr1", SCANNER, "10.1.2.3", 1.0))
    witness.contact(Contact(Event.CLOSED, "mr1", SCANNER, "10.1.2.3", 2.0))
    witness.contact(Contact(Event.REJECTED, "", "NOBODY", "10.9.9.9", 3.0, "no peer has this AE title"))
    assert heard.told("EventOutcomeIndicator") == [("110113", "4")]


def test_what_an_association_brought_is_a_message_for_each_study(
    heard: Heard, witness: Witness, study: list[Path], tmp_path: Path
) -> None:
    transfers = {
        "1.2.3": Transfer(Counter({MRImageStorage: 12}), study[0]),
        "1.2.4": Transfer(Counter({MRImageStorage: 3}), tmp_path / "gone.dcm"),
    }
    witness.contact(Contact(Event.CLOSED, "mr1", SCANNER, "10.1.2.3", 2.0, stored=15, transfers=transfers))
    found = heard.told("EventActionCode", "NumberOfInstances", "AlternativeUserID")
    assert found == [
        ("110104", "C", "12", "AETITLES=MR1 AETITLES=QSMNODE"),
        ("110104", "C", "3", "AETITLES=MR1 AETITLES=QSMNODE"),
    ]
    whose = [
        message.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") for message in heard.messages
    ]
    assert whose[0] not in ("", "unknown")
    assert whose[1] == "unknown"


def test_what_the_node_fetched_itself_was_brought_by_another_and_requested_by_us(
    heard: Heard, witness: Witness, study: list[Path]
) -> None:
    transfers = {"1.2.3": Transfer(Counter({MRImageStorage: 12}), study[0])}
    witness.contact(Contact(Event.FETCHED, "", "PACS", "", 2.0, stored=12, transfers=transfers))
    assert heard.told("EventActionCode", "AlternativeUserID", "UserIsRequestor") == [
        ("110104", "C", "AETITLES=PACS AETITLES=QSMNODE", "false true")
    ]


def answering(*outcomes: str, failure: str = "") -> Any:
    def send(files: Sequence[Path], to: Any, settings: SendSettings) -> Iterator[Delivery]:
        for path, outcome in zip(files, outcomes, strict=False):
            yield Delivery("1", path, 0, outcome, "")  # type: ignore[arg-type]  # one of its literals
        if failure:
            raise PeerFailure(failure)

    return send


def test_what_is_sent_is_told_before_and_after(heard: Heard, witness: Witness, study: list[Path]) -> None:
    send = witness.watching(answering("stored", "stored", "stored"), PACS)
    assert [delivery.path for delivery in send(study, PACS, SendSettings())] == study
    found = heard.told("EventActionCode", "EventOutcomeIndicator", "NumberOfInstances", "NetworkAccessPointID")
    assert found == [("110102", "E", "0", "3", "10.1.2.1 10.1.2.9"), ("110104", "R", "0", "3", "10.1.2.1 10.1.2.9")]


def test_what_was_stored_and_what_was_not_are_told_apart(heard: Heard, witness: Witness, study: list[Path]) -> None:
    send = witness.watching(answering("stored", "refused", failure="it broke off"), PACS)
    with pytest.raises(PeerFailure, match="it broke off"):
        list(send(study, PACS, SendSettings()))
    assert heard.told("EventOutcomeIndicator", "NumberOfInstances")[1:] == [("110104", "0", "1"), ("110104", "4", "2")]
    assert heard.messages[2].findtext("EventIdentification/EventOutcomeDescription") == "it broke off"


def test_a_web_archive_is_told_by_its_address(heard: Heard, witness: Witness, study: list[Path]) -> None:
    web = WebService("web", "https://archive.example/dicom-web")
    list(witness.watching(answering("stored"), web)(study[:1], web, SendSettings()))
    assert heard.told("NetworkAccessPointID")[-1] == ("110104", "10.1.2.1 archive.example")


def an_event(**more: Any) -> Any:
    requestor = SimpleNamespace(ae_title="WORKSTATION ", address="10.1.2.7")
    return SimpleNamespace(assoc=SimpleNamespace(requestor=requestor), **more)


def test_a_query_is_told_and_answered_as_before(heard: Heard, witness: Witness) -> None:
    answers = [(0xFF00, Dataset())]
    service = witness.service(Service({}, [(evt.EVT_C_FIND, lambda event: iter(answers))]))
    [(_, handler)] = service.handlers
    request = SimpleNamespace(AffectedSOPClassUID="1.2.840.10008.5.1.4.1.2.2.1", Identifier=io.BytesIO(b"\x10\x00"))
    event = an_event(request=request, context=SimpleNamespace(transfer_syntax=ImplicitVRLittleEndian))
    assert list(handler(event)) == answers
    assert heard.told("AlternativeUserID") == [("110112", "AETITLES=WORKSTATION AETITLES=QSMNODE")]


def test_what_the_node_asks_itself_is_told_as_it_is_asked(heard: Heard, witness: Witness) -> None:
    keys = {"PatientID": "4711", "StudyDate": "20240101-"}
    witness.asks(PACS)("STUDY", keys)
    witness.asks(WebService("web", "https://archive.example/dicom-web"))("STUDY", keys)
    assert heard.told("NetworkAccessPointID") == [
        ("110112", "10.1.2.1 10.1.2.9"),
        ("110112", "10.1.2.1 archive.example"),
    ]
    dimse, web = (base64.b64decode(found.findtext(".//ParticipantObjectQuery")) for found in heard.messages)
    sent = decode(io.BytesIO(dimse), True, True)
    assert (sent.QueryRetrieveLevel, sent.PatientID, sent.StudyDate) == ("STUDY", "4711", "20240101-")
    assert web == b"level=STUDY&PatientID=4711&StudyDate=20240101-"


def held(study: str, number: int, path: Path, sop_class: str = MRImageStorage) -> Held:
    return Held(study, f"1.2.{number}", sop_class, ExplicitVRLittleEndian, path)


def test_what_is_handed_out_is_told_apart_from_what_is_not(
    heard: Heard, witness: Witness, study: list[Path], tmp_path: Path
) -> None:
    """By study, with where it went and who had asked; whose a file was that is gone is not known."""
    caller, destination = Party("WORKSTATION", "10.1.2.7"), Party("OTHER", "10.1.2.8")
    stored = [held("1.2", 1, tmp_path / "gone.dcm"), held("1.2", 2, study[0]), held("1.3", 3, tmp_path / "gone.dcm")]
    failed = [held("1.2", 4, study[0], SegmentationStorage)]
    witness.handed(Handed(caller, destination, stored, failed, "0x0122 (1)"))
    assert heard.told("EventActionCode", "EventOutcomeIndicator", "NumberOfInstances", "NetworkAccessPointID") == [
        ("110104", "R", "0", "2", "10.1.2.1 10.1.2.8"),
        ("110104", "R", "0", "1", "10.1.2.1 10.1.2.8"),
        ("110104", "R", "4", "1", "10.1.2.1 10.1.2.8"),
    ]
    told = [message.findtext("EventIdentification/EventOutcomeDescription") for message in heard.messages]
    assert told == [None, None, "0x0122 (1)"]
    patients = [found.findall("ParticipantObjectIdentification")[1] for found in heard.messages]
    assert [patient.get("ParticipantObjectID") == "unknown" for patient in patients] == [False, True, False]


def test_who_asked_and_gets_it_is_the_requestor(heard: Heard, witness: Witness, study: list[Path]) -> None:
    caller = Party("WORKSTATION", "10.1.2.7")
    witness.handed(Handed(caller, caller, [held("1.2", 1, study[0])], [], ""))
    assert heard.told("AlternativeUserID", "UserIsRequestor") == [
        ("110104", "AETITLES=QSMNODE AETITLES=WORKSTATION", "false true")
    ]


def test_who_asks_for_what_it_may_not_is_an_alert(heard: Heard, witness: Witness) -> None:
    why = "it has no right to store"
    witness.contact(Contact(Event.CLOSED, "mr1", SCANNER, "10.1.2.3", 2.0, why, denied=12))
    assert heard.told("EventOutcomeIndicator") == [("110113", "4")]
    [message] = heard.messages
    assert message.find("EventIdentification/EventTypeCode").get("csd-code") == "110132"
    assert message.findtext("EventIdentification/EventOutcomeDescription") == f"12 requests: {why}"


def test_other_services_are_left_as_they_are(witness: Witness) -> None:
    handlers = [(evt.EVT_N_ACTION, print)]
    service = Service({"1.2": ()}, handlers, {"1.3": ()}, lambda request: (0xA700, "later"))
    assert witness.service(service) == service
