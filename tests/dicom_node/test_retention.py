"""Images go when they are delivered or useless for long, and never while they may be needed."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dicom_node import cleanup
from dicom_node.config import Config
from dicom_node.holdings import Holdings, Image, Removal
from dicom_node.index import LOST, Index
from dicom_node.outbox import Outbox, Result
from dicom_node.regroup import place
from dicom_node.retention import ANNOUNCEMENT, DAY, EARLIEST, NOT_USED, NOTICE, STRAY, Judged, Sweeper, judge
from dicom_node.room import RESUME
from dicom_node.rules import contradictions
from dicom_node.settings import Retention
from dicom_node.spool import Kept, ReceivedObject, Spool
from dicom_node.states import State
from dicom_node.store import Job, Objection, Store
from tests.dicom_node.making import STUDY, Clock, a_group, an_instance, the_job
from tests.dicom_node.test_index import describe, keep

WEEK = 7 * DAY
KINDS = ("results", "sources", "left_alone", "unused", "quarantine")
DELIVERED = (State.READY, State.RECONSTRUCTING, State.RECONSTRUCTED, State.SENDING, State.SENT)
ROADS: dict[State, Sequence[State]] = {
    State.WAITING: (),
    State.INCOMPLETE: (State.INCOMPLETE,),
    State.FOREIGN: (State.FOREIGN,),
    State.READY: DELIVERED[:1],
    State.RECONSTRUCTING: DELIVERED[:2],
    State.RECONSTRUCTED: DELIVERED[:3],
    State.SENDING: DELIVERED[:4],
    State.SENT: DELIVERED,
    State.ARCHIVED: (*DELIVERED, State.ARCHIVED),
    State.REFUSED: (*DELIVERED[:4], State.REFUSED),
    State.FAILED: (*DELIVERED[:2], State.FAILED),
    State.REVIEW: (*DELIVERED[:2], State.REVIEW),
    State.CANCELLED: (State.READY, State.CANCELLED),
}


class House:
    """A node without a network: spool, index, store, and time that passes when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(1.7e9)
        self.free = 2**50
        self.store = Store(folder / "node.db")
        self.holdings = Holdings(self.store)
        self.open()

    def open(self) -> None:
        self.spool = Spool(self.folder)
        self.index = Index(self.store, self.spool, describe)
        self.index.reconcile()

    def sweep(self, **retention: float) -> None:
        settings = Retention.model_validate(dict.fromkeys(KINDS, 0) | retention)
        Sweeper(
            self.store,
            self.spool,
            self.folder / "jobs",
            settings,
            self.clock,
            self.index.restore,
            lambda folder: self.free,
        )()

    def take(self, *numbers: int) -> list[Path]:
        paths = [keep(self.spool, number) for number in numbers]
        for path in paths:
            os.utime(path, (self.clock(), self.clock()))
        self.index.reconcile()
        return paths

    def job(self, state: State, *numbers: int, key: str = "g") -> int:
        images = [an_instance(number).sop_instance_uid for number in numbers]
        job = self.store.open_job(key, 1, STUDY, images, self.clock()).id
        here = State.WAITING
        for there in ROADS[state]:
            assert self.store.advance(job, here, there, self.clock())
            here = there
        return job

    @property
    def held(self) -> int:
        assert len(self.store.indexed()) == len(list(self.spool.images())), "rows and files differ"
        return len(list(self.spool.images()))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.mark.parametrize("state", list(State))
def test_a_source_goes_after_its_time_if_its_result_is_delivered_and_only_then(house: House, state: State) -> None:
    house.take(1, 2)
    house.job(state, 1, 2)
    house.clock.now += WEEK - 1
    house.sweep(sources=7)
    assert house.held == 2, "its time is not quite over"
    house.clock.now += 2
    house.sweep(sources=0)
    assert house.held == 2, "0 is for ever"
    house.sweep(sources=7)
    assert house.held == (0 if state in (State.SENT, State.ARCHIVED) else 2)
    house.free = 0
    house.sweep()
    assert house.held == (0 if state in (State.SENT, State.ARCHIVED) else 2), "a full disk is no reason either"


@pytest.mark.parametrize("commitment", ["due", "asked", "given", "none"])
def test_what_a_destination_has_yet_to_commit_itself_to_is_needed(house: House, commitment: str) -> None:
    house.take(1)
    job = house.job(State.RECONSTRUCTED, 1)
    outbox = Outbox(house.store)
    outbox.register(the_job(house.store, job), [Result("9.9", Path("r.dcm"))], ["pacs"], house.clock())
    [row] = outbox.of(job)
    outbox.answered(row, "stored", house.clock(), status=0, comment="", due_at=0)
    house.store.database.execute("UPDATE deliveries SET commitment = ?", [commitment])
    outbox.settle(house.clock())
    house.clock.now += 2 * WEEK
    house.sweep(sources=7, free_bytes=2**60)
    assert house.held == (0 if commitment in ("given", "none") else 1)


def test_an_image_of_two_jobs_is_kept_for_the_one_that_needs_it(house: House) -> None:
    house.take(1, 2)
    house.job(State.SENT, 1, key="a")
    other = house.job(State.SENDING, 1, 2, key="b")
    house.clock.now += 2 * WEEK
    house.sweep(sources=7)
    assert house.held == 2
    house.store.advance(other, State.SENDING, State.SENT, house.clock())
    house.sweep(sources=7)
    assert house.held == 2, "its time begins when the last one is delivered"
    house.clock.now += WEEK + 1
    house.sweep(sources=7)
    assert house.held == 0


@pytest.mark.parametrize("state", [*State, None])
def test_what_is_left_alone_goes_after_its_time_or_when_the_disk_fills_and_nothing_else_does(
    house: House, state: State | None
) -> None:
    for full in (False, True):
        house.take(1, 2)
        if state and not full:
            house.job(state, 1, 2)
        house.free = 0 if full else 2**50
        house.clock.now += (STRAY if full else WEEK) - 1
        house.sweep(left_alone=7, free_bytes=2**40)
        assert house.held == 2, "its time is not quite over"
        house.clock.now += 2
        house.sweep(left_alone=0, free_bytes=2**40)
        assert house.held == 2, "0 is for ever, whatever the room"
        house.sweep(left_alone=7, free_bytes=2**40)
        assert house.held == (0 if state is State.FOREIGN else 2)
    if state is State.FOREIGN:
        reasons = [removal.reason for removal in house.holdings.removals()]
        assert reasons == ["left alone for over 7 days", "left alone, and the disk is filling"]
    assert house.store.objections() == [], "it is the daily lot of a node that gets whole studies: nobody is bothered"


def test_what_is_left_alone_stays_while_something_still_comes_to_its_study(house: House) -> None:
    house.take(1)
    house.job(State.FOREIGN, 1)
    house.clock.now += STRAY - 60
    house.take(2)  # of the same study: a phase that was sent by hand
    house.free = 0
    house.clock.now += 120
    house.sweep(left_alone=7, free_bytes=2**40)
    assert house.held == 2
    house.clock.now += STRAY
    house.sweep(left_alone=7, free_bytes=2**40)
    assert [image.sop_instance_uid for image in house.holdings.images(STUDY)] == [an_instance(2).sop_instance_uid]


@pytest.mark.parametrize("other", [state for state in State if state is not State.FOREIGN])
def test_a_job_that_is_left_alone_has_no_say_in_what_another_does_with_the_image(house: House, other: State) -> None:
    house.take(1)
    house.job(State.FOREIGN, 1, key="a")
    house.job(other, 1, key="b")
    house.free = 0
    house.clock.now += 1000 * DAY
    house.sweep(left_alone=7, free_bytes=2**40)
    assert house.held == 1
    house.sweep(sources=7)
    assert house.held == (0 if other in (State.SENT, State.ARCHIVED) else 1)


def test_room_is_made_of_what_is_left_alone_before_what_is_delivered(house: House) -> None:
    house.take(1, 2)
    house.job(State.SENT, 1, key="a")
    house.job(State.FOREIGN, 2, key="b")
    house.clock.now += 2 * STRAY
    settings = Retention(free_bytes=2**40)
    with capture_logs() as told:
        Sweeper(
            *(house.store, house.spool, house.folder / "jobs", settings, house.clock, house.index.restore),
            lambda folder: 0 if len(house.store.indexed()) == 2 else 2**50,
        )()
    assert [image.sop_instance_uid for image in house.holdings.images(STUDY)] == [an_instance(1).sop_instance_uid]
    assert "no_more_room_to_make" not in [line["event"] for line in told]


@pytest.mark.parametrize(
    ("retention", "words"),
    [
        ({}, "add a disk; [retention] unused = 0 keeps for ever: give days"),
        ({"unused": 90, "left_alone": 0, "sources": 0}, "[retention] sources = 0, left_alone = 0 keeps for ever"),
        ({"unused": 90}, "make room, or add a disk"),
    ],
)
def test_who_cannot_make_room_says_what_is_kept_for_ever(house: House, retention: dict[str, float], words: str) -> None:
    house.take(1)
    house.job(State.FAILED, 1)
    house.free = 0
    house.clock.now += WEEK
    settings = {"results": 14, "sources": 30, "left_alone": 30, "unused": 0, "free_bytes": 2**40} | retention
    with capture_logs() as told:
        house.sweep(**settings)
    [line] = [line for line in told if line["event"] == "no_more_room_to_make"]
    assert words in line["do"]
    assert ("for ever" in line["do"]) == ("for ever" in words)


@pytest.mark.parametrize("state", [*sorted(NOT_USED), None])
def test_what_is_of_no_use_is_announced_and_then_goes(house: House, state: State | None) -> None:
    [path] = house.take(1)
    job = house.job(state, 1) if state else 0
    house.clock.now += 166 * DAY - 1
    house.sweep(unused=180)
    assert house.store.objections() == []
    house.clock.now += 2
    house.sweep(unused=180)
    house.sweep(unused=180)
    [told] = house.store.objections()
    assert told.reason.startswith(ANNOUNCEMENT)
    assert told.path == str(path.parent)
    assert "removed in 14 days" in told.reason
    house.clock.now += 14 * DAY - 10
    house.sweep(unused=180)
    assert house.held == 1
    house.clock.now += 20
    house.sweep(unused=180)
    assert (house.held, house.store.objections()) == (0, [])
    assert [(r.kind, r.files) for r in house.holdings.removals()] == [("unused", 1)]
    if state in (State.WAITING, State.INCOMPLETE):
        assert (the_job(house.store, job).state, "announced" in the_job(house.store, job).reason) == (
            State.FOREIGN,
            True,
        )


def test_nothing_goes_unannounced_however_old_it_is(house: House) -> None:
    house.take(1)
    house.clock.now += 1000 * DAY  # the node was off, or its clock was wrong
    house.sweep(unused=180)
    assert house.held == 1
    house.clock.now += NOTICE
    house.sweep(unused=180)
    assert house.held == 0


def test_what_is_used_after_all_is_announced_no_more(house: House) -> None:
    house.take(1)
    job = house.job(State.FAILED, 1)
    house.clock.now += 170 * DAY
    house.sweep(unused=180)
    assert house.store.objections()
    house.store.run_again(the_job(house.store, job), house.clock())
    house.sweep(unused=180)
    assert house.store.objections() == []
    house.clock.now += 1000 * DAY
    house.sweep(unused=180)
    assert house.held == 1


def test_a_study_that_has_not_changed_is_not_judged_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def counted(images: Sequence[Image], jobs: Sequence[Job], awaiting: frozenset[int]) -> list[Judged]:
        judged.append(len(images))
        return judge(images, jobs, awaiting)

    monkeypatch.setattr("dicom_node.retention.judge", counted)
    settings = Retention(results=0, sources=7, unused=0, quarantine=0, free_bytes=0)
    sweep = Sweeper(house.store, house.spool, house.folder / "jobs", settings, house.clock, house.index.restore)
    house.take(1, 2)
    job = house.job(State.SENDING, 1, 2)
    house.clock.now += 2 * WEEK
    for _ in range(3):
        sweep()
    assert judged == [2]
    house.store.advance(job, State.SENDING, State.SENT, house.clock())
    for _ in range(3):
        sweep()
    assert judged == [2, 2]
    house.clock.now += WEEK + 1
    sweep()
    assert house.held == 0


def test_a_disk_that_fills_gets_room_oldest_first(house: House) -> None:
    for number in (1, 2, 3):
        house.take(number)
        house.job(State.SENT, number, key=f"g{number}")
        house.clock.now += DAY
    jobs = house.folder / "jobs"
    for job in (1, 2, 3):
        (jobs / str(job)).mkdir(parents=True)
    house.free = 0
    house.sweep(results=90, sources=90, free_bytes=0)
    assert (house.held, len(list(jobs.iterdir()))) == (3, 3)
    house.sweep(free_bytes=2**40)
    assert (house.held, len(list(jobs.iterdir()))) == (3, 3), "0 days are for ever"
    house.sweep(results=90, free_bytes=2**40)
    assert (house.held, len(list(jobs.iterdir()))) == (3, 0)
    house.sweep(sources=90, free_bytes=2**40)
    assert house.held == 0
    house.take(4)
    house.job(State.SENT, 4, key="g4")
    house.clock.now += EARLIEST / 2
    house.sweep(sources=90, free_bytes=2**40)
    assert house.held == 1, "images of the scan may still be coming"


def asked_to_keep(house: House, number: int, answered_at: float | None) -> None:
    named = json.dumps([("1.2.840.10008.5.1.4.1.1.4", an_instance(number).sop_instance_uid)])
    house.store.database.execute(
        """INSERT INTO pledges (ae_title, transaction_uid, instances, asked_at, due_at, answered_at)
        VALUES (?, ?, ?, ?, ?, ?)""",
        ["MR", f"2.25.{number}", named, house.clock(), house.clock(), answered_at],
    )


def test_what_a_scanner_asks_about_stays_and_what_it_was_told_is_kept_has_its_whole_time(house: House) -> None:
    house.take(1, 2)
    house.job(State.SENT, 1, 2)
    house.clock.now += 2 * DAY
    asked_to_keep(house, 1, house.clock())
    house.free = 0
    house.sweep(sources=7, free_bytes=2**40)
    assert list(house.store.paths([an_instance(n).sop_instance_uid for n in (1, 2)])), "the vouched one is here"
    assert house.held == 1
    asked_to_keep(house, 3, None)
    house.take(3)
    house.job(State.SENT, 3, key="b")
    house.clock.now += 10 * DAY
    house.sweep(sources=7)
    assert house.held == 1
    assert house.store.paths([an_instance(3).sop_instance_uid])
    house.store.database.execute("UPDATE pledges SET answered_at = ?", [house.clock()])
    house.take(4)
    house.job(State.FOREIGN, 4, key="c")
    asked_to_keep(house, 4, house.clock())
    house.sweep(sources=7)
    assert house.held == 1
    house.clock.now += 2 * DAY
    house.free = 0
    house.sweep(left_alone=7, free_bytes=2**40)
    assert house.held == 1, "it is left alone, and a scanner was told that it is kept"
    house.clock.now += 5 * DAY + 1
    house.sweep(left_alone=7)
    assert house.held == 0
    house.clock.now += 8 * DAY
    house.sweep(sources=7)
    assert house.store.rows("SELECT * FROM pledges") == []


def test_what_was_asked_of_archives_is_forgotten_with_the_results(house: House) -> None:
    house.take(1)
    job = house.job(State.SENT, 1)
    for uid, answered_at in (("1", house.clock()), ("2", None)):
        house.store.database.execute(
            "INSERT INTO transactions (transaction_uid, job, destination, asked_at, given_up_at, answered_at) "
            "VALUES (?, ?, 'pacs', 0, 0, ?)",
            [uid, job, answered_at],
        )
    house.clock.now += 8 * DAY
    house.sweep(results=0)
    assert len(house.store.rows("SELECT * FROM transactions")) == 2
    house.sweep(results=7)
    assert [row["transaction_uid"] for row in house.store.rows("SELECT * FROM transactions")] == ["2"]


def test_an_image_of_a_delivered_and_a_failed_job_is_not_needed_for_ever(house: House) -> None:
    house.take(1)
    house.job(State.SENT, 1, key="a")
    house.job(State.FAILED, 1, key="b")
    house.clock.now += 1000 * DAY
    house.sweep(sources=7, unused=30)
    assert house.held == 1
    house.clock.now += NOTICE
    house.sweep(sources=7, unused=30)
    assert house.held == 0


def test_room_is_made_and_images_go_although_a_part_before_fails(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (1, 2):
        house.take(number)
        house.job(State.SENT, number, key=f"g{number}")
        (house.folder / "jobs" / str(number)).mkdir(parents=True)
    house.clock.now += 2 * WEEK
    write_down = house.holdings.write_down

    def locked(holdings: Holdings, removal: Removal) -> None:
        if removal.job == 1:
            raise sqlite3.OperationalError("database is locked")
        write_down(removal)

    monkeypatch.setattr(Holdings, "write_down", locked)
    house.sweep(results=7, sources=7)
    assert [folder.name for folder in (house.folder / "jobs").iterdir()] == ["1"]
    assert house.held == 0
    house.take(3)
    house.job(State.SENT, 3, key="g3")
    house.clock.now += 2 * WEEK
    house.free = 0

    def broken(*arguments: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(cleanup, "clean_up", broken)
    with pytest.raises(OSError, match="Input/output"):
        house.sweep(sources=90, free_bytes=2**40)
    assert house.held == 0


def test_an_announcement_is_withdrawn_and_what_is_told_of_an_image_beside_it_stays(house: House) -> None:
    [path] = house.take(1)
    job = house.job(State.FAILED, 1)
    house.clock.now += 170 * DAY
    house.sweep(unused=180)
    house.store.object_to(Objection(house.clock(), str(path), "", LOST))
    house.store.object_to(Objection(house.clock(), str(path.parent), "", "something else"))
    house.store.run_again(the_job(house.store, job), house.clock())
    house.sweep(unused=180)
    assert [told.reason for told in house.store.objections()] == [LOST, "something else"]


def test_what_was_told_of_objects_that_were_not_kept_has_an_age_and_foreign_files_are_no_trouble(house: House) -> None:
    (house.spool.quarantine_folder / "notes.json").write_text("{}")
    for at, path in ((0.0, None), (1.0, "/elsewhere"), (2.0, None), (house.clock(), None)):
        house.store.object_to(Objection(at, path, "MR1", "no room"))
    house.sweep(quarantine=7)
    assert [told.at for told in house.store.objections()] == [1.0, house.clock()]
    house.clock.now += 2 * WEEK
    house.sweep(quarantine=7)
    assert len(house.store.objections()) == 2, "the number of the last is not given again"


def test_room_must_be_made_up_to_where_senders_are_taken_again() -> None:
    for free, wrong in ((0, False), (int(RESUME * 2**30), False), (1, True), (2**30, True)):
        config = Config(retention=Retention(free_bytes=free, minimum_free_bytes=2**30))
        assert ["expected 0 or at least" in words for _, words in contradictions(config)] == [True] * wrong


def test_a_kill_between_row_and_file_loses_nothing_and_is_made_good(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.take(1, 2)
    job = house.job(State.SENT, 1, 2)
    house.clock.now += 2 * WEEK

    def killed(*arguments: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(house.spool, "remove", killed)
        with pytest.raises(KeyboardInterrupt):
            house.sweep(sources=7)
    assert len(list(house.spool.images())) == 2
    house.open()
    assert house.held == 2
    place(house.store, a_group([1, 2]), house.clock())
    assert [j.id for j in house.store.jobs()] == [job], "what came back is no new acquisition"
    house.sweep(sources=7)
    assert house.held == 0
    assert house.store.objections() == []


def test_what_comes_again_while_it_is_removed_stays(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = house.take(1)
    house.job(State.SENT, 1)
    house.clock.now += 2 * WEEK
    remove = house.spool.remove

    def just_before(path: Path, unchanged_since: int) -> bool:
        received = ReceivedObject(
            STUDY, "1.2.840.10008.5.1.4.1.1.4", an_instance(1).sop_instance_uid, "1.2.840.10008.1.2.1", "MR", b"#1"
        )
        assert house.spool.keep(received) == (Kept.REPEATED, path)
        return remove(path, unchanged_since)

    monkeypatch.setattr(house.spool, "remove", just_before)
    house.sweep(sources=7)
    house.index.start()
    house.index.stop()
    assert (path.is_file(), house.held) == (True, 1)


def test_what_came_again_has_its_time_once_more(house: House) -> None:
    [path] = house.take(1)
    house.job(State.SENT, 1)
    house.clock.now += 6 * DAY
    os.utime(path, (house.clock(), house.clock()))  # as `Spool.keep` does for one that it has
    house.clock.now += 2 * DAY
    house.sweep(sources=7)
    assert house.held == 1
    house.clock.now += 6 * DAY
    house.sweep(sources=7)
    assert house.held == 0


def test_a_loss_is_told_and_a_removal_is_not(house: House) -> None:
    house.take(1)
    house.job(State.SENT, 1)
    house.clock.now += 2 * WEEK
    house.sweep(sources=7)
    [lost] = house.take(2)
    lost.unlink()
    house.open()
    assert [(told.path, told.reason) for told in house.store.objections()] == [(str(lost), LOST)]


def test_quarantine_and_what_is_told_of_it_have_an_age(house: House) -> None:
    old = house.spool.quarantine(b"x", {"reason": "no UID"}, house.clock())
    house.clock.now += WEEK
    new = house.spool.quarantine(b"y", {"reason": "no UID"}, house.clock())
    assert old
    assert new
    house.sweep(quarantine=6.9)
    assert sorted(path.name for path in house.spool.quarantine_folder.iterdir()) == [
        new.with_suffix(".dataset").name,
        new.name,
    ]


def test_the_folder_of_a_study_that_is_gone_goes_a_day_later(house: House) -> None:
    [path] = house.take(1)
    house.job(State.SENT, 1)
    house.clock.now += 2 * WEEK
    house.sweep(sources=7)
    assert not path.exists()
    os.utime(path.parent, (house.clock() - DAY + 60, house.clock() - DAY + 60))
    house.sweep()
    assert path.parent.is_dir()
    house.clock.now += 120
    house.sweep()
    assert not path.parent.exists()
    house.take(1)
    assert house.held == 1, "a study can come again"


@given(
    st.lists(st.tuples(st.sampled_from(State), st.sets(st.integers(1, 5)), st.floats(0, 100)), max_size=5),
    st.sets(st.integers(1, 5)),
)
def test_no_image_of_a_job_that_is_still_to_be_delivered_is_ever_judged_otherwise(
    jobs: list[tuple[State, set[int], float]], awaiting: set[int]
) -> None:
    known = [
        Job(n, "g", n, STUDY, state, "", tuple(map(str, images)), 0, 0.0, None, 0.0, at)
        for n, (state, images, at) in enumerate(jobs, 1)
    ]
    images = [Image(str(n), Path(str(n)), 50.0) for n in range(1, 7)]
    for judged in judge(images, known, frozenset(awaiting)):
        own = [job for job in known if judged.image.sop_instance_uid in job.images]
        assert judged.since >= max([50.0, *(job.changed_at for job in own)])
        delivered = [job.state in (State.SENT, State.ARCHIVED) and job.id not in awaiting for job in own]
        if judged.fate == "left alone":
            assert {job.state for job in own} == {State.FOREIGN}
            assert judged.since >= max(job.changed_at for job in known)
        elif judged.fate == "delivered":
            assert any(delivered)
            assert all(one or job.state is State.FOREIGN for one, job in zip(delivered, own, strict=True))
        elif judged.fate == "unused":
            assert {job.state for job in own} <= {*NOT_USED, State.SENT, State.ARCHIVED, State.FOREIGN}
        if judged.fate != "needed":
            assert not awaiting.intersection(job.id for job in own)
