"""Storage commitment as those who are asked: what is said to be kept is in the index and, to the bit, on the disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.presentation import build_context

from dicom_node.call import Destination, SendSettings, associate
from dicom_node.checkpoint import install_checkpoint
from dicom_node.commit import PUSH_MODEL, WELL_KNOWN_INSTANCE, Commitments, reference
from dicom_node.convert import describe
from dicom_node.exchange import commitment_service
from dicom_node.identity import VERIFICATION
from dicom_node.index import Index
from dicom_node.outbox import Outbox
from dicom_node.peers import Peer, Peers, Right
from dicom_node.receive import Receiver, ReceiveSettings
from dicom_node.send import send
from dicom_node.settings import Send
from dicom_node.spool import Spool
from dicom_node.store import Store
from dicom_node.vouch import ASKED_FOR, INDEXED_WITHIN, Vouch
from tests.dicom_node.making import Clock
from tests.objects import mr_image, write
from tests.peers import free_port, wait_until

PAUSES = Send(first_pause=5, pause_factor=2, longest_pause=60)


class Keeper:
    """A receiver with an index, who vouches for what it has."""

    def __init__(self, folder: Path, *known: Peer) -> None:
        self.clock = Clock()
        self.spool = Spool(folder)
        self.store = Store(folder / "node.db")
        self.index = Index(self.store, self.spool, describe)
        peers = Peers(known)
        self.stopping = False
        settings = SendSettings(connection_timeout=2, association_timeout=2, response_timeout=5)
        self.vouch = Vouch(
            self.store,
            peers,
            settings,
            PAUSES,
            lambda: bool(self.index.pending),
            self.spool.holds,
            self.clock,
            lambda: self.stopping,
        )
        commitments = Commitments(self.store, Outbox(self.store), {}, PAUSES, self.clock)
        self.receiver = Receiver(
            ReceiveSettings(port=0, drain_timeout=1.0),
            self.spool,
            self.index.take,
            self.index.object_to,
            peers=peers,
            services=[commitment_service(commitments, self.vouch)],
        )

    @property
    def open(self) -> list[str]:
        return [row["comment"] for row in self.store.rows("SELECT comment FROM pledges WHERE answered_at IS NULL")]


class Scanner:
    """Asks for commitment, and listens for the answer where it is called or on the association that asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Dataset]] = []
        self.answer = 0x0000
        self.port = free_port()
        self.entity = AE("SCANNER")
        self.entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)

    def hear(self, event: evt.Event) -> tuple[int, None]:
        self.heard.append((event.event_type, event.event_information))
        return self.answer, None

    def call(self, keeper: Keeper) -> Association:
        association = self.entity.associate(
            "127.0.0.1",
            keeper.receiver.port,
            contexts=[build_context(uid) for uid in (PUSH_MODEL, VERIFICATION, MRImageStorage)],
            ae_title="QSMNODE",
            evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint), (evt.EVT_N_EVENT_REPORT, self.hear)],
        )
        assert association.is_established
        return association

    def ask(self, keeper: Keeper, *references: Dataset, transaction: str = "", action: int = 1) -> Association:
        association = self.call(keeper)
        request = Dataset()
        request.TransactionUID = transaction or generate_uid()
        request.ReferencedSOPSequence = list(references)
        answer, _ = association.send_n_action(request, action, PUSH_MODEL, WELL_KNOWN_INSTANCE)
        self.status = answer.Status
        return association


@pytest.fixture
def scanner() -> Scanner:
    return Scanner()


@pytest.fixture(params=["where it listens", "on the same association"])
def keeper(tmp_path: Path, scanner: Scanner, request: pytest.FixtureRequest) -> Iterator[Keeper]:
    listens = request.param == "where it listens"
    may = frozenset({Right.STORE, Right.COMMIT})
    keeper = Keeper(tmp_path / "state", Peer("scanner", "SCANNER", "127.0.0.1", may, scanner.port if listens else 0))
    keeper.receiver.start()
    keeper.index.start()
    server = None
    if listens:
        handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, scanner.hear)]
        server = scanner.entity.start_server(("127.0.0.1", scanner.port), block=False, evt_handlers=handlers)
    try:
        yield keeper
    finally:
        if server is not None:
            scanner.entity.shutdown()
        keeper.receiver.stop()
        keeper.index.stop()


def brought(keeper: Keeper, folder: Path, *numbers: int) -> list[Dataset]:
    """References to images that the keeper was sent."""
    images = [mr_image(number) for number in numbers]
    target = Destination("node", "127.0.0.1", keeper.receiver.port, "QSMNODE")
    deliveries = send(write(folder, *images), target, SendSettings("SCANNER"))
    assert {delivery.status for delivery in deliveries} == {0}
    return [reference(image.SOPClassUID, image.SOPInstanceUID) for image in images]


def test_what_is_held_is_said_to_be_kept(keeper: Keeper, scanner: Scanner, tmp_path: Path) -> None:
    images = brought(keeper, tmp_path / "scan", 1, 2)
    association = scanner.ask(keeper, *images, transaction="1.2.3")
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    keeper.vouch()
    wait_until(lambda: scanner.heard, "it was reported")
    association.release()
    [(event_type, told)] = scanner.heard
    assert (scanner.status, event_type, told.TransactionUID) == (0x0000, 1, "1.2.3")
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [
        item.ReferencedSOPInstanceUID for item in images
    ]
    assert "FailedSOPSequence" not in told
    keeper.vouch()
    assert (len(scanner.heard), keeper.open) == (1, [])


def test_what_is_not_held_or_damaged_or_another_class_is_named_with_the_reason(
    keeper: Keeper, scanner: Scanner, tmp_path: Path
) -> None:
    good, gone, damaged, other = brought(keeper, tmp_path / "scan", 1, 2, 3, 4)
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    [of_gone] = keeper.store.paths([gone.ReferencedSOPInstanceUID])
    Path(of_gone).unlink()
    [of_damaged] = keeper.store.paths([damaged.ReferencedSOPInstanceUID])
    content = bytearray(Path(of_damaged).read_bytes())
    content[-1] ^= 1
    Path(of_damaged).write_bytes(content)
    other.ReferencedSOPClassUID = EnhancedMRImageStorage
    never = reference(MRImageStorage, "1.2.3.4.5")
    association = scanner.ask(keeper, good, gone, damaged, other, never)
    keeper.vouch()
    wait_until(lambda: scanner.heard, "it was reported")
    association.release()
    [(event_type, told)] = scanner.heard
    assert event_type == 2
    assert [item.ReferencedSOPInstanceUID for item in told.ReferencedSOPSequence] == [good.ReferencedSOPInstanceUID]
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in told.FailedSOPSequence] == [
        (gone.ReferencedSOPInstanceUID, 0x0112),
        (damaged.ReferencedSOPInstanceUID, 0x0112),
        (other.ReferencedSOPInstanceUID, 0x0119),
        ("1.2.3.4.5", 0x0112),
    ]


def test_a_report_that_is_not_taken_is_brought_again(keeper: Keeper, scanner: Scanner, tmp_path: Path) -> None:
    [image] = brought(keeper, tmp_path / "scan", 1)
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    association = scanner.ask(keeper, image)
    scanner.answer = 0x0110
    keeper.vouch()
    keeper.vouch()
    assert len(scanner.heard) == 1, "not before the pause is over"
    assert "with 0x0110, expected 0x0000" in keeper.open[0]
    scanner.answer = 0x0000
    keeper.clock.now += 5
    keeper.vouch()
    association.release()
    assert (len(scanner.heard), keeper.open) == (2, [])


def test_who_cannot_be_reached_is_given_up_in_the_end(keeper: Keeper, scanner: Scanner, tmp_path: Path) -> None:
    [image] = brought(keeper, tmp_path / "scan", 1)
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    scanner.ask(keeper, image).release()
    scanner.entity.shutdown()
    wait_until(lambda: not keeper.receiver.open_associations, "it has gone")
    keeper.vouch()
    assert len(keeper.open) == 1
    keeper.clock.now += ASKED_FOR + 1
    keeper.vouch()
    assert keeper.open == []


@pytest.mark.parametrize(
    ("transaction", "uid", "action", "status"),
    [
        ("1.2.3", "1.2.4", 2, 0x0123),
        ("1.2.3", "../../etc/passwd", 1, 0x0115),
        ("x", "1.2.4", 1, 0x0115),
        ("1.2.3", "", 1, 0x0115),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_is_no_request_is_turned_down(
    keeper: Keeper, scanner: Scanner, transaction: str, uid: str, action: int, status: int
) -> None:
    scanner.ask(keeper, reference(MRImageStorage, uid), transaction=transaction, action=action).release()
    assert (scanner.status, keeper.open) == (status, [])


def test_a_request_that_cannot_be_read_is_turned_down(keeper: Keeper) -> None:
    tag = Tag("TransactionUID")
    asked = Dataset({tag: RawDataElement(tag, "ZZ", 4, b"1.2 ", 0, False, True)})
    peer = SimpleNamespace(requestor=SimpleNamespace(ae_title="SCANNER"))
    request = SimpleNamespace(RequestedSOPInstanceUID=WELL_KNOWN_INSTANCE)
    event: Any = SimpleNamespace(action_type=1, action_information=asked, assoc=peer, request=request)
    assert keeper.vouch.requested(event) == (0x0115, None)
    request.RequestedSOPInstanceUID = "1.2.3"
    assert keeper.vouch.requested(event) == (0x0112, None)
    assert keeper.open == []


def test_the_same_request_again_is_one(keeper: Keeper, scanner: Scanner) -> None:
    for _ in range(2):
        scanner.ask(keeper, reference(MRImageStorage, "1.2.4"), transaction="1.2.3").release()
    assert len(keeper.open) == 1


def test_a_request_again_for_the_same_is_answered_again_and_for_another_is_refused(
    keeper: Keeper, scanner: Scanner, tmp_path: Path
) -> None:
    first, second = brought(keeper, tmp_path / "scan", 1, 2)
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    for told in (1, 2):
        association = scanner.ask(keeper, first, second, transaction="1.2.3")
        keeper.vouch()
        wait_until(lambda told=told: len(scanner.heard) == told, "it was reported")  # type: ignore[misc]  # its default
        association.release()
    scanner.ask(keeper, second, transaction="1.2.3").release()
    assert (scanner.status, keeper.open) == (0x0115, [])


def test_what_is_indexed_while_it_is_looked_for_is_kept(keeper: Keeper, scanner: Scanner, tmp_path: Path) -> None:
    [image] = brought(keeper, tmp_path / "scan", 1)
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    [instance] = keeper.store.find([image.ReferencedSOPInstanceUID])
    keeper.store.remove_instances([str(instance.path)])

    def indexed_at_last() -> bool:
        keeper.store.add_instance(instance)
        return False

    keeper.vouch._pending = indexed_at_last
    association = scanner.ask(keeper, image)
    keeper.vouch()
    wait_until(lambda: scanner.heard, "it was reported")
    association.release()
    assert scanner.heard[0][0] == 1


def test_what_was_acknowledged_is_not_denied_however_long_the_index_takes(
    keeper: Keeper, scanner: Scanner, tmp_path: Path
) -> None:
    [image] = brought(keeper, tmp_path / "scan", 1)
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    [instance] = keeper.store.find([image.ReferencedSOPInstanceUID])
    keeper.store.remove_instances([str(instance.path)])
    keeper.vouch._pending = lambda: True
    association = scanner.ask(keeper, image)
    keeper.clock.now += 10 * INDEXED_WITHIN
    keeper.vouch()
    assert (scanner.heard, len(keeper.open)) == ([], 1)
    keeper.store.add_instance(instance)
    keeper.vouch()
    wait_until(lambda: scanner.heard, "it was reported")
    association.release()
    assert scanner.heard[0][0] == 1


def test_what_is_not_indexed_yet_is_waited_for_without_reading_files(
    keeper: Keeper, scanner: Scanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [image] = brought(keeper, tmp_path / "scan", 1)
    wait_until(lambda: not keeper.index.pending, "everything is indexed")
    keeper.vouch._pending = lambda: True
    association = scanner.ask(keeper, image, reference(MRImageStorage, "1.2.3.4.5"))
    with monkeypatch.context() as patched:
        patched.setattr("dicom_node.vouch._is_on_disk", None)
        keeper.vouch()
    assert (scanner.heard, len(keeper.open)) == ([], 1)
    keeper.clock.now += INDEXED_WITHIN
    keeper.vouch()
    wait_until(lambda: scanner.heard, "it was reported")
    association.release()
    assert scanner.heard[0][0] == 2


NEVER: list[tuple[str, str]] = [(MRImageStorage, "1.2.4")]


def test_one_that_is_gone_is_called_once_and_keeps_nobody_waiting(
    tmp_path: Path, scanner: Scanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = frozenset({Right.COMMIT})
    gone = Peer("gone", "GONE", "127.0.0.1", may, free_port())
    keeper = Keeper(tmp_path, gone, Peer("scanner", "SCANNER", "127.0.0.1", may, scanner.port))
    for number in range(5):
        keeper.vouch._pledge("GONE", f"1.2.{number}", NEVER)
    keeper.vouch._pledge("SCANNER", "1.3", NEVER)
    called: list[str] = []

    def counting(contexts: Any, destination: Destination, *rest: Any, **keywords: Any) -> Any:
        called.append(destination.name)
        return associate(contexts, destination, *rest, **keywords)

    monkeypatch.setattr("dicom_node.vouch.associate", counting)
    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, scanner.hear)]
    scanner.entity.start_server(("127.0.0.1", scanner.port), block=False, evt_handlers=handlers)
    try:
        keeper.vouch()
    finally:
        scanner.entity.shutdown()
    assert (called, len(scanner.heard)) == (["gone", "scanner"], 1)
    assert {row["attempts"] for row in keeper.store.rows("SELECT attempts FROM pledges WHERE answered_at IS NULL")} == {
        1
    }


def test_a_node_that_stops_calls_nobody_and_counts_no_attempt(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, Peer("gone", "GONE", "127.0.0.1", frozenset({Right.COMMIT}), free_port()))
    keeper.vouch._pledge("GONE", "1.2.3", NEVER)
    keeper.stopping = True
    keeper.vouch()
    [row] = keeper.store.rows("SELECT attempts, comment FROM pledges")
    assert (row["attempts"], row["comment"]) == (0, "")


def test_one_report_that_is_turned_down_does_not_hold_up_the_others(tmp_path: Path, scanner: Scanner) -> None:
    keeper = Keeper(tmp_path, Peer("scanner", "SCANNER", "127.0.0.1", frozenset({Right.COMMIT}), scanner.port))
    for number in range(3):
        keeper.clock.now += 1
        keeper.vouch._pledge("SCANNER", f"1.2.{number}", NEVER)

    def turn_down_the_first(event: evt.Event) -> tuple[int, None]:
        scanner.hear(event)
        return (0x0110 if event.event_information.TransactionUID == "1.2.0" else 0x0000), None

    handlers: list[Any] = [(evt.EVT_N_EVENT_REPORT, turn_down_the_first)]
    scanner.entity.start_server(("127.0.0.1", scanner.port), block=False, evt_handlers=handlers)
    try:
        keeper.vouch()
    finally:
        scanner.entity.shutdown()
    assert (len(scanner.heard), len(keeper.open)) == (3, 1)


@pytest.fixture
def portless(tmp_path: Path) -> Iterator[Keeper]:
    may = frozenset({Right.STORE, Right.COMMIT})
    keeper = Keeper(tmp_path / "state", Peer("scanner", "SCANNER", "127.0.0.1", may))
    keeper.receiver.start()
    keeper.index.start()
    try:
        yield keeper
    finally:
        keeper.receiver.stop()
        keeper.index.stop()


def test_who_cannot_be_called_is_told_when_it_calls_again(portless: Keeper, scanner: Scanner) -> None:
    scanner.ask(portless, reference(MRImageStorage, "1.2.4")).release()
    wait_until(lambda: not portless.receiver.open_associations, "it has gone")
    with structlog.testing.capture_logs() as logged:
        for _ in range(3):
            portless.vouch()
            portless.clock.now += 60
    assert logged == [], "nothing is tried that cannot succeed"
    [row] = portless.store.rows("SELECT attempts FROM pledges")
    assert row["attempts"] == 0
    association = scanner.call(portless)

    def told() -> bool:  # the caller knows of its association before the node's own thread does
        portless.vouch()
        return bool(scanner.heard)

    wait_until(told, "it is told")
    association.release()
    assert (len(scanner.heard), portless.open) == (1, [])
    portless.vouch()
    assert portless.vouch._open == {}


def test_a_report_beside_the_peer_s_own_requests_disturbs_neither(portless: Keeper, scanner: Scanner) -> None:
    """The peer asks something before it answers the report, as it may: neither is taken for the other."""
    hear = scanner.hear

    def ask_first(event: evt.Event) -> tuple[int, None]:
        echo = C_ECHO()
        echo.MessageID, echo.AffectedSOPClassUID = 7, VERIFICATION
        event.assoc.dimse.send_msg(echo, 3)  # the second that was proposed
        return hear(event)

    scanner.hear = ask_first  # type: ignore[method-assign]  # for one test
    association = scanner.ask(portless, reference(MRImageStorage, "1.2.4"))
    portless.vouch()
    assert (len(scanner.heard), portless.open) == (1, [])
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    association.release()


def test_a_report_waits_until_the_peer_is_served(
    portless: Keeper, scanner: Scanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, going_on = threading.Event(), threading.Event()
    keep = portless.spool.keep

    def slow(*arguments: Any) -> Any:
        entered.set()
        going_on.wait(20)
        return keep(*arguments)

    monkeypatch.setattr(portless.spool, "keep", slow)
    association = scanner.ask(portless, reference(MRImageStorage, "1.2.4"))
    stored: list[int] = []
    storing = threading.Thread(
        target=lambda: stored.append(association.send_c_store(write(tmp_path, mr_image())[0]).Status)
    )
    storing.start()
    assert entered.wait(10)
    reporting = threading.Thread(target=portless.vouch)
    reporting.start()
    time.sleep(0.2)
    assert scanner.heard == [], "not within a request of the peer"
    going_on.set()
    storing.join()
    reporting.join()
    association.release()
    assert (stored, len(scanner.heard), portless.open) == ([0x0000], 1, [])
