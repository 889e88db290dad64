"""The gate over real associations, dcmtk's among them: who is let in, who is told why not, and what each may ask."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_FIND, C_STORE, N_EVENT_REPORT
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from dicom_node.checkpoint import install_checkpoint
from dicom_node.contacts import Contact, Event
from dicom_node.identity import VERIFICATION
from dicom_node.peers import Peer, Peers, Right
from dicom_node.receive import ReceiveSettings, Service
from tests.objects import mr_image, write
from tests.peers import Node, running_node, wait_until

SETTINGS = ReceiveSettings(port=0, drain_timeout=1.0, maximum_associations=3)
SCANNER = Peer("scanner", "SCANNER", "127.0.0.0/8", frozenset({Right.STORE}), associations=2)
ELSEWHERE = Peer("elsewhere", "ELSEWHERE", "192.0.2.0/24", frozenset({Right.STORE}))
VIEWER = Peer("viewer", "VIEWER", "127.0.0.1", frozenset({Right.QUERY}))
NARROW = Peer("narrow", "NARROW", "127.0.0.1", frozenset({Right.STORE}), sop_classes=frozenset({MRImageStorage}))
ASKABLE = {
    StudyRootQueryRetrieveInformationModelFind: ["1.2.840.10008.1.2"],
    StudyRootQueryRetrieveInformationModelMove: ["1.2.840.10008.1.2"],
    StudyRootQueryRetrieveInformationModelGet: ["1.2.840.10008.1.2"],
    StorageCommitmentPushModel: ["1.2.840.10008.1.2"],
}


def _must_not_be_asked(event: evt.Event) -> None:
    raise AssertionError("a request without a right reached its service")


SERVICE = Service(
    ASKABLE,
    [
        (event, _must_not_be_asked)
        for event in (evt.EVT_C_FIND, evt.EVT_C_MOVE, evt.EVT_C_GET, evt.EVT_N_ACTION, evt.EVT_N_EVENT_REPORT)
    ],
)
told: list[Contact] = []
"""What the node told of its associations."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    told.clear()
    with running_node(
        tmp_path / "spool",
        SETTINGS,
        peers=Peers([SCANNER, ELSEWHERE, VIEWER, NARROW]),
        services=[SERVICE],
        on_contact=told.append,
    ) as running:
        yield running


def ask(node: Node, calling: str, called: str = "QSMNODE", *contexts: str) -> Association:
    entity = AE(calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    return entity.associate(
        "127.0.0.1",
        node.receiver.port,
        contexts=[build_context(uid) for uid in (VERIFICATION, *contexts)],
        ae_title=called,
        evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint)],
    )


@contextmanager
def associated(node: Node, calling: str, *contexts: str) -> Iterator[Association]:
    association = ask(node, calling, "QSMNODE", *contexts)
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


@pytest.mark.parametrize(
    ("calling", "called", "answer"),
    [
        ("STRANGER", "QSMNODE", (1, 1, 3)),
        ("ELSEWHERE", "QSMNODE", (1, 1, 3)),
        ("SCANNER", "OTHERNODE", (1, 1, 7)),
    ],
)
def test_who_is_not_known_is_rejected_with_the_reason(
    node: Node, calling: str, called: str, answer: tuple[int, int, int]
) -> None:
    with structlog.testing.capture_logs() as logged:
        association = ask(node, calling, called)
    assert association.is_rejected
    told = association.acceptor.primitive
    assert told is not None
    assert (told.result, told.result_source, told.diagnostic) == answer
    [line] = [line for line in logged if line["event"] == "association_rejected"]
    assert (line["calling_ae_title"], line["host"]) == (calling, "127.0.0.1")
    with associated(node, "SCANNER") as known:
        assert known.send_c_echo().Status == 0x0000


def test_who_cannot_be_judged_stays_outside(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """pynetdicom swallows what a handler raises, and goes on to accept."""

    def fail(*_: object) -> None:
        raise RuntimeError("a name server that answers nonsense")

    with monkeypatch.context() as patched:
        patched.setattr(Peers, "recognise", fail)
        assert ask(node, "SCANNER").is_rejected
    with associated(node, "SCANNER") as association:
        assert association.send_c_echo().Status == 0x0000


def test_each_peer_has_so_many_associations_and_all_have_so_many(node: Node) -> None:
    with associated(node, "SCANNER"):
        with associated(node, "SCANNER"):
            third = ask(node, "SCANNER")
            assert third.is_rejected
            told = third.acceptor.primitive
            assert told is not None
            assert (told.result, told.result_source, told.diagnostic) == (2, 3, 2)
            with associated(node, "VIEWER"):
                assert ask(node, "NARROW").is_rejected, "three are open, of all peers"
        wait_until(lambda: len(node.released) == 2, "two have gone")
        with associated(node, "SCANNER"):
            pass


def test_connections_without_a_word_take_nobody_s_place(node: Node) -> None:
    """Stock pynetdicom counts them among the associations until the time for a request is over."""
    silent = [socket.create_connection(("127.0.0.1", node.receiver.port)) for _ in range(5)]
    with associated(node, "SCANNER") as association:
        assert association.send_c_echo().Status == 0x0000
    for connection in silent:
        connection.close()


def test_one_address_has_so_many_connections(node: Node) -> None:
    with structlog.testing.capture_logs() as logged:
        silent = [socket.create_connection(("127.0.0.1", node.receiver.port), timeout=5) for _ in range(7)]
        assert silent[-1].recv(1) == b"", "closed without being read from"
        assert not ask(node, "SCANNER").is_established
        for connection in silent:
            connection.close()
    assert {line["event"] for line in logged if line["log_level"] == "warning"} >= {"connection_refused"}
    wait_until(lambda: ask(node, "SCANNER").is_established, "there is room again")


def test_what_a_peer_has_no_right_to_is_not_authorised(node: Node, tmp_path: Path) -> None:
    (file,) = write(tmp_path, mr_image())
    with associated(node, "VIEWER", MRImageStorage) as association:
        assert association.send_c_store(file).Status == 0x0124
        assert association.send_c_echo().Status == 0x0000, "the association goes on"
    assert (node.stored, node.refused) == ([], [])
    assert list(node.spool.images()) == []
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = ""
    with associated(node, "SCANNER", *ASKABLE) as association:
        answers = [
            *association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind),
            *association.send_c_get(query, StudyRootQueryRetrieveInformationModelGet),
            *association.send_c_move(query, "SCANNER", StudyRootQueryRetrieveInformationModelMove),
            association.send_n_action(query, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"),
            association.send_n_event_report(query, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"),
        ]
    assert [status.Status for status, _ in answers] == [0x0124] * 5
    wait_until(lambda: [one.event for one in told].count(Event.CLOSED) == 2, "both have gone")
    assert [(one.calling_ae_title, one.denied, one.reason) for one in told if one.event is Event.CLOSED] == [
        ("VIEWER", 1, "it has no right to store"),
        ("SCANNER", 5, "it has no right to commit, query, report, retrieve"),
    ]


def test_a_service_may_refuse_before_its_handler(tmp_path: Path) -> None:
    def refusal(request: Any) -> tuple[int, str] | None:
        return (0xA700, "later") if isinstance(request, C_FIND) else None

    service = Service(ASKABLE, [(evt.EVT_C_FIND, _must_not_be_asked)], refusal=refusal)
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    with (
        running_node(tmp_path, SETTINGS, peers=Peers([VIEWER]), services=[SERVICE, service]) as node,
        associated(node, "VIEWER", *ASKABLE) as association,
    ):
        [(status, _)] = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        assert (status.Status, status.ErrorComment) == (0xA700, "later")
        assert association.send_c_echo().Status == 0x0000


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_handler_that_fails_is_told_of_with_whom_it_failed(tmp_path: Path, when: str) -> None:
    """pynetdicom answers for it, and would tell nobody by name."""

    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset]]:
        yield 0xFF00, query
        raise ValueError("Doe^Jane is no number")

    def fail(event: evt.Event) -> None:
        raise ValueError("Doe^Jane is no number")

    service = Service(ASKABLE, [(evt.EVT_C_FIND, {"at once": fail, "later": find}[when])])
    with (
        structlog.testing.capture_logs() as logged,
        running_node(tmp_path, SETTINGS, peers=Peers([VIEWER]), services=[service]) as node,
        associated(node, "VIEWER", *ASKABLE) as association,
    ):
        *_, (status, _) = association.send_c_find(query, StudyRootQueryRetrieveInformationModelFind)
        assert status.Status == 0xC311
    [line] = [line for line in logged if line["event"] == "service_failed"]
    assert (line["request"], line["ae_title"], line["host"]) == ("EVT_C_FIND", "VIEWER", "127.0.0.1")


def test_a_peer_may_be_narrowed_to_classes(node: Node, tmp_path: Path) -> None:
    with associated(node, "NARROW", MRImageStorage, EnhancedMRImageStorage) as association:
        assert [context.abstract_syntax for context in association.rejected_contexts] == [EnhancedMRImageStorage]
        (file,) = write(tmp_path, mr_image())
        assert association.send_c_store(file).Status == 0x0000


def fragments(control: int, context: int) -> P_DATA:
    """100 kB of a command or of a data set that goes on (PS3.8 E.2)."""
    primitive = P_DATA()
    primitive.presentation_data_value_list.append((context, bytes([control]) + bytes(100_000)))
    return primitive


def is_hung_up_on(association: Association, primitive: P_DATA, most: int) -> bool:
    """Whether it is, before it has sent so many."""
    for _ in range(most):
        association.dul.send_pdu(primitive)
        while association.is_established and association.dul.to_provider_queue.qsize() > 2:
            time.sleep(0.001)
        if not association.is_established:
            return True
    return False


def test_a_command_that_never_ends_is_not_collected(node: Node) -> None:
    association = ask(node, "SCANNER")
    assert is_hung_up_on(association, fragments(0x01, 1), 60)


def test_a_data_set_is_large_only_where_one_may_store(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_node.messages._LARGEST_DATA_SET", 10**6)
    for calling in ("VIEWER", "SCANNER"):
        association = ask(node, calling, "QSMNODE", MRImageStorage)
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = MRImageStorage, "1.2.3"
        request.DataSet = BytesIO(bytes(1000))
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        association.dul.send_pdu(next(iter(message.encode_msg(3, 0))))  # the command alone
        assert is_hung_up_on(association, fragments(0x00, 3), 60) is (calling == "VIEWER")
        association.abort()


@pytest.mark.parametrize("asked", ["find", "report"])
def test_requests_that_wait_for_no_answer_are_not_collected(tmp_path: Path, asked: str) -> None:
    going_on = threading.Event()

    def slow(event: evt.Event) -> Iterator[tuple[int, None]]:
        going_on.wait(20)
        yield 0xFE00, None

    def slow_too(event: evt.Event) -> tuple[int, None]:
        going_on.wait(20)
        return 0x0000, None

    service = Service(ASKABLE, [(evt.EVT_C_FIND, slow), (evt.EVT_N_EVENT_REPORT, slow_too)])
    peer = Peer("archive", "ARCHIVE", "127.0.0.1", frozenset({Right.QUERY, Right.REPORT}))
    find = C_FIND()
    find.MessageID, find.Priority = 1, 2
    find.AffectedSOPClassUID = StudyRootQueryRetrieveInformationModelFind
    find.Identifier = BytesIO(b"\x08\x00\x52\x00\x06\x00\x00\x00STUDY ")
    report = N_EVENT_REPORT()
    report.MessageID, report.EventTypeID = 1, 1
    report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
    with running_node(tmp_path, SETTINGS, peers=Peers([peer]), services=[service]) as node:
        request = {"find": find, "report": report}[asked]
        association = ask(node, "ARCHIVE", "QSMNODE", request.AffectedSOPClassUID)
        before = threading.active_count()
        for _ in range(20):
            association.dimse.send_msg(request, 3)
            time.sleep(0.005)
        try:
            wait_until(lambda: not association.is_established, "it is hung up on", seconds=5)
            assert threading.active_count() < before + 10
        finally:
            going_on.set()


@pytest.mark.dcmtk
def test_dcmtk_hears_why(node: Node, storescu_command: Path) -> None:
    def echoscu(calling: str, called: str) -> str:
        line = [str(storescu_command.with_name("echoscu")), "-aet", calling, "-aec", called]
        line += ["127.0.0.1", str(node.receiver.port)]
        return subprocess.run(line, capture_output=True, text=True, timeout=30).stderr

    assert "Calling AE Title Not Recognized" in echoscu("STRANGER", "QSMNODE")
    assert "Called AE Title Not Recognized" in echoscu("SCANNER", "OTHER")
    assert echoscu("SCANNER", "QSMNODE") == ""
