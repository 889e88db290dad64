"""Couriers: image by image, each destination for itself, never giving up and never silent."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from dicom_node.call import Destination, SendSettings
from dicom_node.deliver import BREAKS, Courier
from dicom_node.errors import PeerFailure, Unreachable, UnreadableObject
from dicom_node.narrate import Narrator
from dicom_node.outbox import Outbox, Result, Row
from dicom_node.send import Delivery, Outcome
from dicom_node.settings import Send
from dicom_node.states import Priority, State
from dicom_node.store import Store
from tests.dicom_node.making import Clock, a_file, a_ready_job, the_job

STATUS: dict[Outcome, int] = {"stored": 0x0000, "refused": 0xA900, "retry": 0xA700}


class Peer:
    """Answers each file as `outcomes` says; breaks off after `breaks_after` files."""

    def __init__(self) -> None:
        self.outcomes: Callable[[str], Outcome] = lambda uid: "stored"
        self.breaks_after: int | None = None
        self.is_there = True
        self.stumbles_over: frozenset[str] = frozenset()
        self.stored: list[str] = []
        self.associations = 0
        self.comment = "no thanks"

    def __call__(self, files: Sequence[Path], to: Destination, settings: SendSettings) -> Iterator[Delivery]:
        self.associations += 1
        if not self.is_there:
            raise Unreachable("pacs took no TCP connection")
        for count, path in enumerate(files):
            if count == self.breaks_after:
                raise PeerFailure("pacs broke off")
            uid = path.stem
            if uid in self.stumbles_over:
                yield Delivery(uid, path, None, "retry", "pacs broke off at it", broke_off=True)
                continue
            outcome = self.outcomes(uid)
            if outcome == "stored":
                self.stored.append(uid)
            yield Delivery(uid, path, STATUS[outcome], outcome, "" if outcome == "stored" else self.comment)
        if self.breaks_after == len(files):
            raise PeerFailure("pacs broke off")


class Line:
    """A store with a job in `sending`, three results, and couriers to it."""

    def __init__(self, folder: Path, destinations: Sequence[str] = ("pacs",)) -> None:
        self.clock = Clock()
        self.store = Store(folder / "node.db")
        self.outbox = Outbox(self.store)
        self.jobs = folder / "jobs"
        self.destinations = destinations
        self.stopping = False
        self.job = self.a_sending_job("g")

    def a_sending_job(self, key: str) -> int:
        job = a_ready_job(self.store, key)
        self.store.claim(self.clock(), lease=1, ceiling=3)
        self.store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, self.clock())
        uids = [f"1.2.3.{job}.{n}" for n in (1, 2, 3)]
        results = [Result(uid, a_file(self.jobs / str(job) / "result" / "dicom" / f"{uid}.dcm", uid)) for uid in uids]
        assert self.outbox.register(the_job(self.store, job), results, self.destinations, self.clock())
        return job

    def round(self, peer: Peer, destination: str = "pacs") -> None:
        Courier(
            self.store,
            self.outbox,
            Destination(destination, "127.0.0.1", 1, "PACS"),
            Send(first_pause=5, pause_factor=2, longest_pause=60),
            SendSettings(),
            peer,
            self.jobs,
            self.clock,
            lambda: self.stopping,
        )()

    def outcomes(self, job: int | None = None) -> list[str]:
        return [row.outcome for row in self.outbox.of(job or self.job)]

    @property
    def state(self) -> State:
        return the_job(self.store, self.job).state


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_everything_stored_is_sent(line: Line) -> None:
    peer = Peer()
    line.round(peer)
    assert (line.state, peer.associations, len(peer.stored)) == (State.SENT, 1, 3)
    line.round(peer)
    assert peer.associations == 1, "there was nothing left to send"


def test_a_half_sent_series_goes_on_where_it_was(line: Line) -> None:
    peer = Peer()
    peer.breaks_after = 1
    line.round(peer)
    assert (line.state, line.outcomes()) == (State.SENDING, ["stored", "pending", "pending"])
    peer.breaks_after = None
    line.clock.now += 4.9
    line.round(peer)
    assert peer.associations == 1, "it was asked before the pause ended"
    line.clock.now += 0.2
    line.round(peer)
    assert line.state is State.SENT
    assert sorted(peer.stored) == sorted({*peer.stored}), "something was sent twice"


def test_pauses_grow_and_trying_never_ends(line: Line) -> None:
    peer = Peer()
    peer.breaks_after = 0
    asked = []
    for second in range(400):
        line.clock.now = 1000.0 + second
        before = peer.associations
        line.round(peer)
        if peer.associations > before:
            asked.append(second)
    assert asked == [0, 5, 15, 35, 75, 135, 195, 255, 315, 375]
    assert {row.comment for row in line.outbox.of(line.job)} == {"pacs broke off"}
    assert line.state is State.SENDING


def test_a_temporary_answer_is_tried_again_and_a_refusal_is_kept_and_shown(line: Line) -> None:
    peer = Peer()
    peer.outcomes = lambda uid: {"1": "stored", "2": "retry", "3": "refused"}[uid[-1]]  # type: ignore[return-value]
    line.round(peer)
    assert (line.state, line.outcomes()) == (State.SENDING, ["stored", "pending", "refused"])
    peer.outcomes = lambda uid: "stored"
    line.clock.now += 5
    line.round(peer)
    assert (line.state, line.outcomes()) == (State.REFUSED, ["stored", "stored", "refused"])
    assert "1 of 3 turned down, such as by pacs: answered 0xA900" in the_job(line.store, line.job).reason
    assert line.outbox.again(line.job, line.clock())
    line.round(peer)
    assert (line.state, len(peer.stored)) == (State.SENT, 3)


def test_a_dead_destination_holds_up_no_other(tmp_path: Path) -> None:
    line = Line(tmp_path, ["dead", "alive"])
    dead, alive = Peer(), Peer()
    dead.breaks_after = 0
    line.round(dead, "dead")
    line.round(alive, "alive")
    assert (len(alive.stored), line.state) == (3, State.SENDING)
    assert {row.outcome for row in line.outbox.of(line.job) if row.destination == "alive"} == {"stored"}
    line.outbox.refuse_unknown(["alive"], line.clock())
    line.outbox.settle(line.clock())
    assert line.state is State.REFUSED
    assert "no longer configured" in the_job(line.store, line.job).reason


def test_one_jobs_surprise_holds_up_no_other(line: Line) -> None:
    second = line.a_sending_job("second")
    peer = Peer()

    def surprise(uid: str) -> Outcome:
        if uid.startswith(f"1.2.3.{line.job}."):
            raise ZeroDivisionError("nobody expects this")
        return "stored"

    peer.outcomes = surprise
    line.round(peer)
    assert the_job(line.store, second).state is State.SENT
    assert line.state is State.SENDING
    [comment] = {row.comment for row in line.outbox.of(line.job)}
    assert comment.startswith("ZeroDivisionError at dicom_node.deliver:")


@pytest.mark.parametrize("damage", ["gone", "unreadable"])
def test_results_that_are_no_longer_whole_are_made_anew(line: Line, damage: str) -> None:
    peer = Peer()
    if damage == "gone":
        line.outbox.of(line.job)[1].path.unlink()
    else:

        def unreadable(uid: str) -> Outcome:
            raise UnreadableObject("no DICOM file")

        peer.outcomes = unreadable
    line.round(peer)
    assert line.state is State.READY
    assert not (line.jobs / str(line.job)).exists()


def test_who_sees_late_that_a_result_is_gone_takes_no_folder_from_a_worker(tmp_path: Path) -> None:
    line = Line(tmp_path, ["first", "second"])
    folder = line.jobs / str(line.job)
    due = line.outbox.next_due

    def due_and_then_overtaken(destination: str, now: float, but_not: Collection[int] = ()) -> list[Row]:
        found = due(destination, now, but_not)
        line.outbox.next_due = due  # type: ignore[method-assign]
        line.round(Peer(), "first")
        assert line.store.claim(line.clock(), lease=1, ceiling=9)
        a_file(folder / "result.part" / "1.dcm", "1.9")
        return found

    line.outbox.next_due = due_and_then_overtaken  # type: ignore[method-assign]  # the other courier is that fast
    shutil.rmtree(folder)
    line.round(Peer(), "second")
    assert line.state is State.RECONSTRUCTING
    assert (folder / "result.part" / "1.dcm").is_file()


def test_a_folder_that_cannot_be_removed_keeps_its_job_where_it_is_and_holds_up_no_other(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = line.a_sending_job("second")
    line.outbox.of(line.job)[1].path.unlink()

    def stuck(folder: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "rename", stuck)
    line.round(Peer())
    assert line.state is State.SENDING
    assert the_job(line.store, second).state is State.SENT
    monkeypatch.undo()
    line.round(Peer())
    assert line.state is State.READY


def test_the_peers_words_may_name_a_patient_and_are_in_no_log(line: Line) -> None:
    peer = Peer()
    peer.outcomes = lambda uid: "retry" if uid.endswith("2") else "refused"
    peer.comment = "cannot store DOE^JANE"
    with structlog.testing.capture_logs() as told:
        narrate = Narrator(line.store, line.jobs)
        line.round(peer)
        line.clock.now += 5
        peer.outcomes = lambda uid: "refused"
        line.round(peer)
        narrate([])
    assert line.state is State.REFUSED
    assert {entry["event"] for entry in told} >= {"not_stored_refused", "not_stored_retry", f"job {line.job}: refused"}
    assert {entry["status"] for entry in told if "status" in entry} == {"0xA900", "0xA700"}
    assert "DOE" not in str(told)
    assert {row.comment for row in line.outbox.of(line.job)} == {"answered 0xA900 cannot store DOE^JANE"}


def test_a_stopping_node_ends_after_the_image_in_hand(line: Line) -> None:
    peer = Peer()

    def stop(uid: str) -> Outcome:
        line.stopping = True
        return "stored"

    peer.outcomes = stop
    line.round(peer)
    assert line.outcomes() == ["stored", "pending", "pending"]


def test_an_answer_is_written_down_before_the_next_image_goes(line: Line) -> None:
    peer = Peer()
    seen: list[list[str]] = []

    def look(uid: str) -> Outcome:
        seen.append(line.outcomes())
        return "stored"

    peer.outcomes = look
    line.round(peer)
    assert [row.count("stored") for row in seen] == [0, 1, 2]


def test_a_job_done_again_replaces_its_rows(line: Line) -> None:
    line.round(Peer())
    job = the_job(line.store, line.job)
    assert line.store.run_again(job, line.clock())
    line.store.claim(line.clock(), lease=1, ceiling=3)
    line.store.advance(line.job, State.RECONSTRUCTING, State.RECONSTRUCTED, line.clock())
    results = [Result("1.9", line.jobs / "1.9.dcm")]
    assert line.outbox.register(the_job(line.store, line.job), results, ["pacs"], line.clock())
    assert [(row.sop_instance_uid, row.outcome) for row in line.outbox.of(line.job)] == [("1.9", "pending")]
    assert not line.outbox.register(the_job(line.store, line.job), results, ["pacs"], line.clock()), "registered twice"


def test_an_instance_at_which_it_breaks_off_is_given_up_at_last_and_keeps_no_other(line: Line) -> None:
    peer = Peer()
    bad = line.outbox.of(line.job)[1].sop_instance_uid
    peer.stumbles_over = frozenset({bad})
    for attempt in range(1, BREAKS + 1):
        line.round(peer)
        assert line.outcomes().count("stored") == 2
        [row] = [row for row in line.outbox.of(line.job) if row.sop_instance_uid == bad]
        assert (row.broken_off, row.status) == (attempt, None)
        line.clock.now += 61
    assert (line.state, row.outcome) == (State.REFUSED, "refused")
    assert f"pacs: broke off at it {BREAKS} times" in the_job(line.store, line.job).reason
    line.round(peer)
    assert peer.associations == BREAKS, "it was asked again unasked"
    peer.stumbles_over = frozenset()
    assert line.outbox.again(line.job, line.clock())
    assert [row.broken_off for row in line.outbox.of(line.job) if row.sop_instance_uid == bad] == [0]
    line.round(peer)
    assert line.state is State.SENT


def test_a_peer_that_breaks_off_now_and_then_loses_no_instance(line: Line) -> None:
    """What counts is one instance, over and over; not the peer's bad days."""
    peer = Peer()
    peer.breaks_after = 0
    for _ in range(2 * BREAKS):
        line.round(peer)
        line.clock.now += 61
    assert {(row.outcome, row.broken_off) for row in line.outbox.of(line.job)} == {("pending", 0)}
    peer.breaks_after = None
    line.round(peer)
    assert line.state is State.SENT


def test_a_dead_peer_is_called_once_for_all_jobs_and_when_it_is_back_all_are_due(line: Line) -> None:
    jobs = [line.job, *(line.a_sending_job(str(number)) for number in range(4))]
    peer = Peer()
    peer.is_there = False
    for _ in range(3):
        line.round(peer)
        line.clock.now += 61
    assert peer.associations == 3, "each job waited for the time-out of its own call"
    line.round(peer)
    assert peer.associations == 4
    line.round(peer)
    assert peer.associations == 4, "its pause had not ended"
    newcomer = line.a_sending_job("newcomer")
    peer.is_there = True
    line.round(peer)
    assert {the_job(line.store, job).state for job in (*jobs, newcomer)} == {State.SENT}, "their pauses had not ended"


def test_what_it_told_to_come_later_waits_when_it_is_back(line: Line) -> None:
    peer = Peer()
    peer.outcomes = lambda uid: "retry"
    line.round(peer)
    line.a_sending_job("second")
    peer.outcomes = lambda uid: "stored"
    line.round(peer)
    assert line.outcomes() == ["pending"] * 3


def test_the_next_job_is_looked_for_when_the_one_before_is_sent(line: Line) -> None:
    """A patient of today who comes while a cohort is sent is the next."""
    cohort = [line.job, *(line.a_sending_job(str(number)) for number in range(3))]
    for job in cohort:
        line.store.put(job, Priority.COHORT)
    peer = Peer()
    order: list[str] = []

    def come_meanwhile(uid: str) -> Outcome:
        job = uid.split(".")[3]
        order.extend([job] if job not in order else [])
        if len(order) == 1 and len(line.store.jobs()) == len(cohort):
            line.a_sending_job("today")
        return "stored"

    peer.outcomes = come_meanwhile
    line.round(peer)
    assert order == ["1", "5", "2", "3", "4"]
