"""Storage commitment as those who ask: sent is not archived, until the destination says so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import MRImageStorage

from dicom_node.call import Destination, SendSettings
from dicom_node.cleanup import clean_up
from dicom_node.commit import Commitments, Committer, Report, ask, prune, take_report
from dicom_node.errors import PeerFailure
from dicom_node.exchange import commitment_service
from dicom_node.outbox import Outbox, Result, Row
from dicom_node.peers import Peer, Peers, Right
from dicom_node.settings import Retention, Send
from dicom_node.states import State
from dicom_node.store import Store
from dicom_node.vouch import Vouch
from tests.committing import CommittingArchive
from tests.dicom_node.making import Clock, a_file, a_ready_job, the_job
from tests.peers import running_node, wait_until

PAUSES = Send(first_pause=5, pause_factor=2, longest_pause=60, commitment_timeout=100)


class Line:
    """A store with a job whose two results are stored, and who asks for commitment."""

    def __init__(
        self, folder: Path, destinations: Sequence[str] = ("pacs",), committing: Sequence[str] | None = None
    ) -> None:
        self.clock = Clock()
        self.folder = folder
        self.open(destinations if committing is None else committing)
        self.destinations = destinations
        self.job = a_ready_job(self.store)
        self.store.claim(self.clock(), lease=1, ceiling=3)
        self.store.advance(self.job, State.RECONSTRUCTING, State.RECONSTRUCTED, self.clock())
        self.uids = [f"1.2.3.{n}" for n in (1, 2)]
        results = [Result(uid, a_file(self._file(uid), uid), MRImageStorage) for uid in self.uids]
        assert self.outbox.register(the_job(self.store, self.job), results, destinations, self.clock())
        self.asked: list[tuple[str, list[str]]] = []
        self.fails: str | Exception = ""

    def open(self, destinations: Sequence[str] = ("pacs",)) -> None:
        """Also: as after a restart."""
        self.store = Store(self.folder / "node.db")
        self.outbox = Outbox(self.store, frozenset(destinations))
        titles = {name: name.upper() for name in destinations}
        self.commitments = Commitments(self.store, self.outbox, titles, PAUSES, self.clock)

    def _file(self, uid: str) -> Path:
        return self.folder / "jobs" / "1" / "result" / "dicom" / f"{uid}.dcm"

    def deliver(self, destination: str = "pacs") -> None:
        for row in self.outbox.next_due(destination, self.clock()):
            self.outbox.answered(row, "stored", self.clock(), status=0, comment="answered 0x0000", due_at=self.clock())
        self.outbox.settle(self.clock())

    def _ask(
        self,
        transaction: str,
        rows: Sequence[Row],
        destination: Destination,
        settings: SendSettings,
        report: Report,
        taken: Callable[[], None],
        over: Callable[[], bool],
    ) -> None:
        self.asked.append((transaction, [row.sop_instance_uid for row in rows]))
        if isinstance(self.fails, Exception):
            raise self.fails
        if self.fails:
            raise PeerFailure(self.fails)
        taken()

    def round(self, destination: str = "pacs") -> None:
        target = Destination(destination, "127.0.0.1", 1, destination.upper())
        Committer(self.commitments, target, SendSettings(), self._ask, lambda: False)()

    def report(
        self, kept: Sequence[str], failed: Sequence[str] = (), *, of: int = -1, by: str = "PACS", reason: int = 0x0112
    ) -> bool:
        return self.commitments.report(self.asked[of][0], by, set(kept), dict.fromkeys(failed, reason))

    @property
    def state(self) -> State:
        return the_job(self.store, self.job).state

    def rows(self) -> list[tuple[str, str]]:
        return [(row.outcome, row.commitment) for row in self.outbox.of(self.job)]


def test_a_report_that_cannot_be_read_is_turned_down() -> None:
    """Its peer is told so; nothing of it is taken."""
    tag = Tag("TransactionUID")
    unnamed, broken = Dataset(), Dataset({tag: RawDataElement(tag, "ZZ", 4, b"1.2 ", 0, False, True)})
    unnamed.ReferencedSOPSequence = [Dataset()]
    for content in (unnamed, broken):
        event: Any = SimpleNamespace(event_type=1, event_information=content)
        assert take_report(event, "PACS", lambda *answer: pytest.fail("it was taken")) == (0x0115, None)


@pytest.fixture
def line(tmp_path: Path) -> Line:
    line = Line(tmp_path)
    line.deliver()
    return line


def test_sent_is_archived_only_when_it_is_said_to_be_kept(line: Line) -> None:
    assert line.state is State.SENT
    line.round()
    assert (line.state, [uids for _, uids in line.asked]) == (State.SENT, [line.uids])
    line.round()
    assert len(line.asked) == 1, "what is asked is not asked again at once"
    assert line.report(line.uids)
    assert line.state is State.ARCHIVED
    assert line.rows() == [("stored", "given")] * 2
    assert line.report(line.uids), "the same answer again changes nothing"
    assert line.state is State.ARCHIVED


def test_what_is_not_kept_is_sent_again_and_asked_again(line: Line) -> None:
    line.round()
    assert line.report(line.uids[:1], line.uids[1:])
    assert line.state is State.SENDING
    assert line.rows() == [("stored", "given"), ("pending", "due")]
    assert "pacs does not hold 1" in the_job(line.store, line.job).reason
    line.deliver()
    assert line.state is State.SENDING, "not before the pause is over"
    line.round()
    assert len(line.asked) == 1, "asked is when nothing is left to send"
    line.clock.now += 5
    line.deliver()
    line.round()
    assert [uids for _, uids in line.asked] == [line.uids, line.uids[1:]]
    assert line.asked[0][0] != line.asked[1][0], "a transaction UID is never used again"
    assert line.report(line.uids[1:])
    assert line.state is State.ARCHIVED


@pytest.mark.parametrize("reason", [0x0110, 0x0213, 0x0131])
def test_what_is_not_kept_for_a_reason_that_passes_is_asked_again(line: Line, reason: int) -> None:
    line.round()
    assert line.report([], line.uids, reason=reason)
    assert (line.state, line.rows()) == (State.SENT, [("stored", "due")] * 2)
    assert f"0x{reason:04X}" in line.outbox.of(line.job)[0].comment
    line.clock.now += 5
    line.round()
    assert [uids for _, uids in line.asked] == [line.uids] * 2
    assert line.report(line.uids)
    assert line.state is State.ARCHIVED


@pytest.mark.parametrize("reason", [0x0119, 0x0122, 0xC000])
def test_what_is_not_kept_for_good_is_refused_until_somebody_asks(line: Line, reason: int) -> None:
    line.round()
    assert line.report(line.uids[:1], line.uids[1:], reason=reason)
    assert (line.state, line.rows()) == (State.REFUSED, [("stored", "given"), ("refused", "due")])
    assert f"0x{reason:04X}" in the_job(line.store, line.job).reason
    line.clock.now += 1e6
    line.deliver()
    line.round()
    assert len(line.asked) == 1
    assert line.outbox.again(line.job, line.clock())
    line.deliver()
    line.round()
    assert line.asked[1][1] == line.uids[1:]
    assert line.report(line.uids[1:])
    assert line.state is State.ARCHIVED


def test_a_surprise_is_told_and_stalls_nothing(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line, "fails", KeyError("surprise"))
    line.round()
    assert line.rows() == [("stored", "due")] * 2
    assert "KeyError at " in line.outbox.of(line.job)[0].comment


def test_what_is_not_answered_is_asked_again_under_another_uid(line: Line) -> None:
    line.round()
    line.clock.now += 99
    line.round()
    assert len(line.asked) == 1
    line.clock.now += 1
    line.round()
    assert line.rows() == [("stored", "due")] * 2
    assert "no commitment in 100 s" in line.outbox.of(line.job)[0].comment
    line.clock.now += 5
    line.round()
    assert [uids for _, uids in line.asked] == [line.uids] * 2
    assert line.asked[0][0] != line.asked[1][0]
    assert line.report([], line.uids, of=0), "known, but it was given up:"
    assert line.state is State.SENT, "what it did not keep then may be kept by now"
    assert line.report(line.uids, of=0), "what it says to keep, it keeps, however late"
    assert line.state is State.ARCHIVED


def test_what_a_killed_node_may_not_have_asked_is_asked_at_the_next_start(line: Line) -> None:
    rows = line.commitments.due("pacs")[line.job]
    transaction = line.commitments.begin(rows)
    line.round()
    assert not line.asked
    line.clock.now += 5
    line.round()
    [(again, uids)] = line.asked
    assert (again != transaction, uids) == (True, line.uids)
    assert line.commitments.report(transaction, "PACS", set(line.uids), {}), "it was asked after all: its answer counts"
    assert line.state is State.ARCHIVED


def test_an_answer_that_leaves_something_out_is_no_answer_for_it(line: Line) -> None:
    line.round()
    assert line.report(line.uids[:1])
    assert (line.state, line.rows()) == (State.SENT, [("stored", "given"), ("stored", "due")])
    line.clock.now += 5
    line.round()
    assert line.asked[1][1] == line.uids[1:]


def test_a_destination_that_cannot_be_asked_is_asked_again_after_growing_pauses(line: Line) -> None:
    line.fails = "pacs is down"
    times = []
    for _ in range(200):
        before = len(line.asked)
        line.round()
        if len(line.asked) > before:
            times.append(line.clock.now)
        line.clock.now += 1
    assert [later - earlier for earlier, later in itertools.pairwise(times)] == [5, 10, 20, 40, 60, 60]
    assert "commitment cannot be asked: pacs is down" in line.outbox.of(line.job)[0].comment
    assert line.state is State.SENT
    line.fails = ""
    line.store.hasten(line.clock(), 1e6)  # as at a start, or after a reload
    before = len(line.asked)
    line.round()
    assert len(line.asked) == before + 1, "perhaps it was mended: it is asked at once"


@pytest.mark.parametrize(("transaction", "by"), [("1.2.3.4.5", "PACS"), (None, "OTHER")])
def test_only_who_was_asked_can_answer(line: Line, transaction: str | None, by: str) -> None:
    line.round()
    assert not line.commitments.report(transaction or line.asked[0][0], by, set(line.uids), {})
    assert line.state is State.SENT


def test_a_restart_forgets_nothing(line: Line) -> None:
    line.round()
    line.open()
    line.round()
    assert len(line.asked) == 1
    assert line.report(line.uids)
    assert line.state is State.ARCHIVED


def test_destinations_are_independent(tmp_path: Path) -> None:
    line = Line(tmp_path, ["pacs", "vna"])
    line.deliver("pacs")
    line.round("pacs")
    assert line.report(line.uids)
    assert line.state is State.SENDING, "the other has not stored anything yet"
    line.deliver("vna")
    assert line.state is State.SENT
    line.round("vna")
    assert not line.report(line.uids, by="PACS"), "one does not answer for the other"
    assert line.report(line.uids, by="VNA")
    assert line.state is State.ARCHIVED


def test_a_destination_that_is_asked_no_more_keeps_nothing_open(line: Line) -> None:
    line.round()
    line.open(destinations=())
    line.outbox.ask_no_more(line.clock())
    assert line.rows() == [("stored", "none")] * 2
    line.round()
    assert len(line.asked) == 1


def test_a_job_that_waited_for_it_alone_is_archived(tmp_path: Path) -> None:
    line = Line(tmp_path, ["pacs", "vna"])
    line.deliver("pacs")
    line.deliver("vna")
    line.round("pacs")
    assert line.report(line.uids)
    assert line.state is State.SENT
    line.open(["pacs"])
    line.outbox.ask_no_more(line.clock())
    assert line.state is State.ARCHIVED


def test_what_is_under_way_when_commitment_is_switched_on_is_asked_for_too(tmp_path: Path) -> None:
    line = Line(tmp_path, committing=[])
    [first, _] = line.outbox.next_due("pacs", line.clock())
    line.outbox.answered(first, "stored", line.clock(), status=0, comment="", due_at=line.clock())
    line.store.database.execute("UPDATE deliveries SET sop_class_uid = ''")  # as an older version left it
    line.open(["pacs"])
    line.commitments.take_up()
    assert line.rows() == [("stored", "due"), ("pending", "due")]
    assert {row.sop_class_uid for row in line.outbox.of(line.job)} == {MRImageStorage}
    line.deliver()
    line.round()
    assert line.asked[0][1] == line.uids
    assert line.report(line.uids)
    assert line.state is State.ARCHIVED


def test_what_was_sent_before_commitment_was_switched_on_is_left_alone(tmp_path: Path) -> None:
    line = Line(tmp_path, committing=[])
    line.deliver()
    line.open(["pacs"])
    line.commitments.take_up()
    assert (line.state, line.rows()) == (State.SENT, [("stored", "none")] * 2)


def test_nothing_that_may_have_to_be_sent_again_is_cleaned_up(line: Line) -> None:
    folder, later = line.folder / "jobs" / "1", line.clock() + 1e9
    clean_up(line.store, line.folder / "jobs", Retention(results=1), later)
    assert folder.is_dir()
    line.round()
    line.report(line.uids)
    clean_up(line.store, line.folder / "jobs", Retention(results=1), later)
    assert not folder.exists()


@pytest.mark.parametrize("answer_on", ["same", "new"])
def test_over_associations_it_answers_on_the_same_or_on_another(
    line: Line, tmp_path: Path, answer_on: Literal["same", "new"]
) -> None:
    archiving = Peer("pacs", "PACS", "127.0.0.1", frozenset({Right.REPORT}))
    unused = Vouch(
        line.store, Peers(), SendSettings(), PAUSES, lambda: False, lambda uid: False, line.clock, lambda: False
    )
    with (
        CommittingArchive(tmp_path / "archive", ae_title="PACS", answer_on=answer_on) as archive,
        running_node(
            tmp_path / "spool", peers=Peers([archiving]), services=[commitment_service(line.commitments, unused)]
        ) as node,
    ):
        archive.listener = ("127.0.0.1", node.receiver.port)
        archive.keeps = lambda uid: uid == line.uids[0]
        target = Destination("pacs", "127.0.0.1", archive.port, "PACS")
        committer = Committer(line.commitments, target, SendSettings(), ask, lambda: False)
        committer()
        wait_until(lambda: archive.reported == [0x0000], "its answer was taken")
        assert line.state is State.SENDING
        line.clock.now += 5
        line.deliver()
        archive.keeps = lambda uid: True
        committer()
        wait_until(lambda: line.state is State.ARCHIVED, "archived")
        [first, second] = archive.asked.values()
        assert [item.ReferencedSOPClassUID for item in first.ReferencedSOPSequence] == [MRImageStorage] * 2
        assert [item.ReferencedSOPInstanceUID for item in second.ReferencedSOPSequence] == line.uids[1:]
        if answer_on == "new":
            archive.asked["1.2.3"] = first
            archive.report("1.2.3")
            assert archive.reported[-1] == 0x0115, "we never asked that"


def test_an_association_that_has_just_ended_is_the_peer_s_failure(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(*_: object, **__: object) -> None:
        raise RuntimeError("The association with a peer SCP must be established")

    monkeypatch.setattr("pynetdicom.association.Association.send_n_action", ended)
    with CommittingArchive(tmp_path / "archive", ae_title="PACS") as archive:
        target = Destination("pacs", "127.0.0.1", archive.port, "PACS")
        rows, report = line.outbox.of(line.job), line.commitments.report
        with pytest.raises(PeerFailure, match="cannot be asked for storage commitment"):
            ask("1.2.3", rows, target, SendSettings(), report, lambda: None, lambda: False)


def test_a_destination_without_the_service_says_so(line: Line, tmp_path: Path) -> None:
    from demo.archive import Archive

    with Archive(tmp_path / "archive") as archive:
        target = Destination("pacs", "127.0.0.1", archive.port, archive.ae_title)
        Committer(line.commitments, target, SendSettings(), ask, lambda: False)()
    assert "accepted none of the 1 presentation contexts" in line.outbox.of(line.job)[0].comment
    assert line.rows() == [("stored", "due")] * 2


def test_answered_transactions_are_forgotten_when_they_are_old_and_open_ones_never(line: Line) -> None:
    line.deliver()
    rows = line.outbox.of(line.job)
    answered, open_ = line.commitments.begin(rows), line.commitments.begin(rows)
    line.commitments.withdraw(answered, "not answered")
    assert prune(line.store, line.clock()) == 0
    line.clock.now += 1
    assert prune(line.store, line.clock()) == 1
    assert prune(line.store, line.clock()) == 0
    assert (line.commitments.answered(open_), line.commitments.answered(answered)) == (False, True)
    assert not line.commitments.report(answered, "PACS", [], {}), "as of one that we did not begin"
