"""Groups become jobs, late images join or make a revision, and one bad study holds up no other."""

import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dicom_node.model import Completeness, Group, Instance
from dicom_node.outbox import Outbox, Result
from dicom_node.regroup import place, priority, regroup
from dicom_node.states import Priority, State
from dicom_node.store import Job, Store
from tests.dicom_node.making import STUDY, a_group, a_ready_job, an_instance, the_job

COMPLETE, WAITING = Completeness.COMPLETE, Completeness.WAITING
INCOMPLETE, FOREIGN = Completeness.INCOMPLETE, Completeness.FOREIGN


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


def uids(*numbers: int) -> tuple[str, ...]:
    return tuple(an_instance(n).sop_instance_uid for n in numbers)


def walked(store: Store, job: int) -> list[State]:
    return [move.target for move in store.journal() if move.job == job]


@pytest.mark.parametrize(
    ("completeness", "state"),
    [(COMPLETE, State.READY), (WAITING, State.WAITING), (INCOMPLETE, State.INCOMPLETE), (FOREIGN, State.FOREIGN)],
)
def test_a_new_group_becomes_a_job_in_the_state_of_its_completeness(
    store: Store, completeness: Completeness, state: State
) -> None:
    place(store, a_group([2, 1], completeness, reason="echo 2 is missing"), 5.0)
    [job] = store.jobs()
    assert (job.state, job.images, job.revision, job.created_at) == (state, uids(1, 2), 1, 5.0)
    if state in (State.INCOMPLETE, State.FOREIGN):
        assert job.reason == "echo 2 is missing"
    place(store, a_group([2, 1], completeness), 6.0)
    assert store.jobs() == [job], "the same group again changed something"


@pytest.mark.parametrize("before", [WAITING, INCOMPLETE, FOREIGN, COMPLETE])
def test_late_images_join_a_job_that_has_not_begun(store: Store, before: Completeness) -> None:
    place(store, a_group([1], before), 1.0)
    place(store, a_group([1, 2], COMPLETE), 2.0)
    [job] = store.jobs()
    assert (job.state, job.images, job.revision) == (State.READY, uids(1, 2), 1)


@pytest.mark.parametrize("state", [State.FAILED, State.REVIEW])
def test_late_images_reopen_a_job_of_which_nothing_was_made(store: Store, state: State) -> None:
    job = a_ready_job(store, numbers=(1,))
    store.claim(2.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, state, 3.0, "no brain found")
    place(store, a_group([1]), 4.0)
    assert the_job(store, job).state is state, "nothing new came, nothing is tried again"
    place(store, a_group([1, 2]), 5.0)
    assert walked(store, job)[-2:] == [State.WAITING, State.READY]
    assert the_job(store, job).images == uids(1, 2)


@pytest.mark.parametrize("state", [State.FAILED, State.READY, State.CANCELLED])
def test_late_images_change_no_job_of_which_others_hold_results(store: Store, state: State) -> None:
    job, outbox = a_ready_job(store, numbers=(1,)), Outbox(store)
    store.claim(2.0, lease=1, ceiling=3)
    store.keep_manner(job, "as it was")
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 2.0)
    outbox.register(the_job(store, job), [Result("1.2", Path("a")), Result("1.3", Path("b"))], ["pacs"], 2.0)
    outbox.answered(outbox.of(job)[0], "stored", 2.0, status=0, comment="", due_at=2.0)
    if state is State.CANCELLED:
        store.advance(job, State.SENDING, state, 3.0)
    else:
        store.advance(job, State.SENDING, State.READY, 3.0)
    if state is State.FAILED:
        store.advance(job, State.READY, state, 3.0)
    before = the_job(store, job)
    place(store, a_group([1, 2]), 4.0)
    assert the_job(store, job) == before
    if state is State.CANCELLED:
        assert len(store.jobs()) == 1
        assert store.take_up(before, 5.0)
        place(store, a_group([1, 2]), 6.0)
        assert (the_job(store, job).state, the_job(store, job).made_with) == (State.READY, "as it was")
    assert [(found.revision, found.images) for found in store.jobs()] == [(1, uids(1)), (2, uids(1, 2))]


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [State.RECONSTRUCTED],
        [State.RECONSTRUCTED, State.SENDING],
        [State.RECONSTRUCTED, State.SENDING, State.SENT],
        [State.RECONSTRUCTED, State.SENDING, State.REFUSED],
    ],
)
def test_late_images_after_the_beginning_make_a_revision_and_leave_the_first_alone(
    store: Store, steps: list[State]
) -> None:
    job = a_ready_job(store, numbers=(1, 2))
    store.claim(2.0, lease=1, ceiling=3)
    here = State.RECONSTRUCTING
    for step in steps:
        store.advance(job, here, step, 3.0)
        here = step
    first = the_job(store, job)
    place(store, a_group([1, 2, 3], INCOMPLETE, reason="holes"), 4.0)
    place(store, a_group([1, 2, 3, 4], COMPLETE), 5.0)
    place(store, a_group([1, 2, 3, 4], COMPLETE), 6.0)
    revision = store.jobs()[-1]
    assert store.jobs() == [first, revision]
    assert (revision.state, revision.revision, revision.images) == (State.READY, 2, uids(1, 2, 3, 4))


def test_a_second_export_makes_nothing_wherever_the_grouping_puts_it(store: Store) -> None:
    job = a_ready_job(store, numbers=(1, 2))
    store.claim(2.0, lease=1, ceiling=3)
    before = store.jobs()
    place(store, a_group([1, 2], set_aside=[11, 12]), 4.0)
    place(store, a_group([11, 12], set_aside=[1, 2]), 5.0)
    assert store.jobs() == before
    assert walked(store, job) == [State.WAITING, State.READY, State.RECONSTRUCTING]


def test_a_group_that_becomes_part_of_another_retires_its_job(store: Store) -> None:
    for number in (1, 2):
        store.add_instance(an_instance(number))
    place(store, a_group([1], INCOMPLETE, key="swallowed"), 1.0)
    place(store, a_group([9], COMPLETE, key="elsewhere"), 1.0)

    def group(instances: Sequence[Instance], now: float, quiet: float, open_: frozenset[str]) -> list[Group]:
        return [a_group([1, 2], key="g"), a_group([9], key="elsewhere")]

    regroup(store, group, 2.0, 1.0, frozenset())
    states = {job.group_key: job.state for job in store.jobs()}
    assert states == {"swallowed": State.FOREIGN, "g": State.READY, "elsewhere": State.READY}


def test_a_study_is_looked_at_until_it_waits_for_nothing_and_not_again(store: Store) -> None:
    store.add_instance(an_instance(1))
    looks: list[float] = []

    def group(instances: Sequence[Instance], now: float, quiet: float, open_: frozenset[str]) -> list[Group]:
        assert (quiet, open_) == (7.0, frozenset({"a1"}))
        looks.append(now)
        return [
            a_group([i.sop_instance_uid.rpartition(".")[2] and 1 for i in instances], WAITING if now < 3 else COMPLETE)
        ]

    for now in (1.0, 2.0, 3.0, 4.0, 5.0):
        regroup(store, group, now, 7.0, frozenset({"a1"}))
    assert looks == [1.0, 2.0, 3.0]
    store.add_instance(an_instance(2))
    regroup(store, group, 6.0, 7.0, frozenset({"a1"}))
    assert looks[-1] == 6.0


def test_a_round_that_is_long_enough_leaves_the_rest_to_the_next_and_looks_at_all_in_turn(store: Store) -> None:
    studies = [f"1.2.{number}" for number in range(5)]
    for study in studies:
        store.add_instance(an_instance(1, study=study))
    looks: list[str] = []

    def group(instances: Sequence[Instance], now: float, quiet: float, open_: frozenset[str]) -> list[Group]:
        looks.append(instances[0].study_instance_uid)
        return [replace(a_group([1], WAITING, key=looks[-1]), instances=tuple(instances))]

    after = ""
    for _ in range(6):
        after = regroup(store, group, 1.0, 1.0, frozenset(), after=after, enough=lambda: len(looks) % 2 == 0)
    assert looks == (3 * studies)[:12], "those that wait keep nobody from being looked at"
    assert regroup(store, group, 1.0, 1.0, frozenset()) == ""


def test_a_database_that_is_locked_for_a_while_loses_no_study_and_holds_up_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add_instance(an_instance(1, study="1.2.111"))
    store.add_instance(an_instance(1, study=STUDY))
    failures = iter([sqlite3.OperationalError("database is locked")])
    open_job = store.open_job

    def open_when_it_is_free(*arguments: Any, **more: Any) -> Job:
        for failure in failures:
            raise failure
        return open_job(*arguments, **more)

    monkeypatch.setattr(store, "open_job", open_when_it_is_free)

    def group(instances: Sequence[Instance], now: float, quiet: float, open_: frozenset[str]) -> list[Group]:
        return [replace(a_group([1], key=instances[0].study_instance_uid), instances=tuple(instances))]

    regroup(store, group, 1.0, 1.0, frozenset())
    assert [job.group_key for job in store.jobs()] == [STUDY]
    regroup(store, group, 2.0, 1.0, frozenset())
    assert {job.group_key for job in store.jobs()} == {STUDY, "1.2.111"}
    assert (store.open_studies(), store.objections()) == ([], [])


def test_a_database_that_is_found_damaged_is_handed_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_instance(an_instance(1))

    def corrupt(study: str) -> list[Instance]:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    monkeypatch.setattr(store, "instances", corrupt)
    with pytest.raises(sqlite3.DatabaseError, match="malformed"):
        regroup(store, lambda *_: [], 0.0, 60.0, frozenset())


def test_a_worker_that_claims_while_a_late_image_joins_gets_it_too(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or, had it been quicker, a revision would be made of it: in no case is an image left out for ever."""
    job = a_ready_job(store, numbers=(1,))
    store.add_instance(an_instance(2))
    latest = store.latest
    workers: list[threading.Thread] = []
    claimed: list[Job | None] = []

    def claim_meanwhile(key: str) -> Job | None:
        found = latest(key)
        worker = threading.Thread(target=lambda: claimed.append(store.claim(2.0, 60.0, 3)))
        worker.start()
        worker.join(0.5)  # a claim that is not kept waiting is over by then
        workers.append(worker)
        return found

    monkeypatch.setattr(store, "latest", claim_meanwhile)
    regroup(store, lambda *_: [a_group([1, 2])], 2.0, 1.0, frozenset())
    workers[0].join()
    assert claimed == [the_job(store, job)]
    assert the_job(store, job).images == uids(1, 2)
    assert (store.open_studies(), store.objections()) == ([], [])


def test_one_study_that_cannot_be_grouped_is_reported_and_holds_up_no_other(store: Store) -> None:
    store.add_instance(an_instance(1, study="1.2.666"))
    store.add_instance(an_instance(1, study=STUDY))

    def group(instances: Sequence[Instance], now: float, quiet: float, open_: frozenset[str]) -> list[Group]:
        if instances[0].study_instance_uid == "1.2.666":
            raise ZeroDivisionError("a slice thickness of 0")
        return [a_group([1])]

    for now in (1.0, 2.0):
        regroup(store, group, now, 1.0, frozenset())
    assert [job.state for job in store.jobs()] == [State.READY]
    [objection] = store.objections()
    assert "1.2.666 cannot be grouped: ZeroDivisionError at " in objection.reason


def sent(store: Store, key: str, *numbers: int) -> int:
    job = a_ready_job(store, key, numbers=numbers)
    store.claim(2.0, lease=1, ceiling=3)
    for source, target in pairwise((State.RECONSTRUCTING, State.RECONSTRUCTED, State.SENDING, State.SENT)):
        assert store.advance(job, source, target, 3.0)
    return job


@pytest.mark.parametrize("key", ["before", "other"])
def test_images_that_were_removed_and_come_again_make_no_second_result(store: Store, key: str) -> None:
    """Not while they come one after the other, nor in another order: then another image gives the group its key."""
    job = sent(store, "before", 1, 2, 3)
    for numbers in ([3], [3, 1], [3, 1, 2]):
        place(store, a_group(numbers, WAITING, key=key), 9.0)
        place(store, a_group(numbers, INCOMPLETE, key=key), 9.0)
    place(store, a_group([1, 2, 3], COMPLETE, key=key), 9.0)
    assert [(j.id, j.state) for j in store.jobs()] == [(job, State.SENT)]


def test_what_comes_with_something_new_is_a_revision_of_what_it_was(store: Store) -> None:
    sent(store, "before", 1, 2)
    place(store, a_group([2, 1, 3], COMPLETE, key="other"), 9.0)
    assert [(j.group_key, j.revision, j.state) for j in store.jobs()] == [
        ("before", 1, State.SENT),
        ("before", 2, State.READY),
    ]


def test_what_comes_again_of_a_job_that_is_to_be_run_again_is_run(store: Store) -> None:
    job = sent(store, "before", 1, 2)
    store.run_again(the_job(store, job), 8.0)
    store.claim(8.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.FAILED, 8.0, "2 of its 2 images are gone from the spool")

    def group(instances: Sequence[Instance], now: float, quiet: float, open_: frozenset[str]) -> list[Group]:
        return [a_group([2, 1], key="other")]

    store.look_again_at(STUDY)
    regroup(store, group, 9.0, 1.0, frozenset())
    assert [(j.group_key, j.state) for j in store.jobs()] == [("before", State.FOREIGN), ("other", State.READY)]


SCANNED = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("acquired_at", "days_later", "fetched", "expected"),
    [
        ("20260301120000", 0.1, False, Priority.TODAY),
        ("20260301120000.000", 1.4, False, Priority.TODAY),
        ("20260301120000", 1.0, True, Priority.COHORT),
        ("20260301120000", 30.0, False, Priority.COHORT),
        ("120000.000000", 30.0, False, Priority.TODAY),
        ("20269999120000", 30.0, False, Priority.TODAY),
        ("", 30.0, False, Priority.TODAY),
        ("20260301120000", -30.0, False, Priority.TODAY),
    ],
)
def test_who_was_just_scanned_is_told_from_a_cohort(
    acquired_at: str, days_later: float, fetched: bool, expected: Priority
) -> None:
    group = a_group([1, 2])
    images = [
        replace(
            image,
            received_at=SCANNED.timestamp() + days_later * 86400,
            frames=(replace(image.frames[0], acquired_at=acquired_at),),
        )
        for image in group.instances
    ]
    assert priority(replace(group, instances=tuple(images)), fetched) is expected


def test_what_was_fetched_is_a_cohort(store: Store) -> None:
    series = an_instance(1).series_instance_uid
    for state, expected in (("refused", Priority.TODAY), ("fetched", Priority.COHORT)):
        store.database.execute("DELETE FROM fetches")
        columns = {
            "peer": "pacs",
            "study_instance_uid": STUDY,
            "series_instance_uid": series,
            "images": 1,
            "state": state,
            "reason": "",
            "attempts": 1,
            "due_at": 1.0,
            "changed_at": 1.0,
        }
        store.database["fetches"].insert(columns)
        group = a_group([1], key=state)
        fresh = replace(group.instances[0], received_at=0.0)
        place(store, replace(group, instances=(fresh,)), 5.0)
        assert store.jobs()[-1].priority is expected
