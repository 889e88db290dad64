"""Storage commitment as those who are asked: what is said to be kept is in the index and, to the bit, on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.call import Destination, SendSettings
from dicom_node.checkpoint import install_checkpoint
from dicom_node.commit import PUSH_MODEL, WELL_KNOWN_INSTANCE, Commitments, reference
from dicom_node.config import Send
from dicom_node.convert import describe
from dicom_node.exchange import commitment_service
from dicom_node.index import Index
from dicom_node.outbox import Outbox
from dicom_node.peers import Peer, Peers, Right
from dicom_node.receive import Receiver, ReceiveSettings
from dicom_node.send import send
from dicom_node.spool import Spool
from dicom_node.store import Store
from dicom_node.vouch import ASKED_FOR, Vouch
from tests.dicom_node.making import Clock
from tests.objects import mr_image, write
from tests.peers import free_port, wait_until

PAUSES = Send(first_pause=5, pause_factor=2, longest_pause=60)


class Keeper:
    """A receiver with an index, who vouches for what it has."""

    def __init__(self, folder: Path, peer: Peer) -> None:
        self.clock = Clock()
        self.spool = Spool(folder)
        self.store = Store(folder / "node.db")
        self.index = Index(self.store, self.spool, describe)
        peers = Peers([peer])
        settings = SendSettings(connection_timeout=2, association_timeout=2, response_timeout=5)
        self.vouch = Vouch(self.store, peers, settings, PAUSES, lambda: bool(self.index.pending), self.clock)
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

    def ask(self, keeper: Keeper, *references: Dataset, transaction: str = "", action: int = 1) -> Association:
        association = self.entity.associate(
            "127.0.0.1",
            keeper.receiver.port,
            contexts=[build_context(PUSH_MODEL)],
            ae_title="QSMNODE",
            evt_handlers=[(evt.EVT_CONN_OPEN, install_checkpoint), (evt.EVT_N_EVENT_REPORT, self.hear)],
        )
        assert association.is_established
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
        handlers = [(evt.EVT_N_EVENT_REPORT, scanner.hear)]
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


def test_the_same_request_again_is_one(keeper: Keeper, scanner: Scanner) -> None:
    for _ in range(2):
        scanner.ask(keeper, reference(MRImageStorage, "1.2.4"), transaction="1.2.3").release()
    assert len(keeper.open) == 1
