"""From ready to sending, whatever becomes of the worker."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

import pytest

from dicom_node.cleanup import make_anew
from dicom_node.dispatch import MOST_ENDS, NODE_ENDED, Dispatch
from dicom_node.errors import Contradicted, NotConvertible
from dicom_node.execute import TimeLimitExceeded, WorkerDied, WorkerStopped
from dicom_node.memory import GB, LONGEST_GAP, LONGEST_SHORTAGE, UNBOUNDED, Need, Room
from dicom_node.outbox import Outbox
from dicom_node.recipes import Recipe
from dicom_node.settings import Output, Reconstruct, Scanner
from dicom_node.states import Priority, State
from dicom_node.store import Store
from tests.dicom_node.making import Clock, a_file, a_ready_job, a_report, an_instance, the_job

RECIPE = Recipe("test", {})


class ByHand(Executor):
    """Holds the calls until the test ends them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls.append((future, fn, args))
        return future

    def end(self, error: BaseException | None = None) -> None:
        future, fn, args = self.calls.pop(0)
        if error is None:
            future.set_result(fn(*args))
        else:
            future.set_exception(error)


def work(folder: Path, recipe: Recipe) -> Path:
    for number in (1, 2):
        a_file(folder / "result" / "dicom" / f"{number}.dcm", f"1.2.3.{number}")
    return a_report(folder / "result")


class Line:
    def __init__(self, folder: Path, destinations: Sequence[str] = ("pacs",), withhold_failed: bool = True) -> None:
        self.withhold_failed = withhold_failed
        self.store = Store(folder / "node.db")
        self.outbox = Outbox(self.store)
        self.executor = ByHand()
        self.clock = Clock()
        self.jobs = folder / "jobs"
        self.room = UNBOUNDED
        self.recipe = RECIPE
        self.dispatch = self.a_dispatch(destinations)

    def a_dispatch(
        self,
        destinations: Sequence[str] = ("pacs",),
        scanners: Sequence[Scanner] = (),
        disk_has_room: Callable[[], bool] = lambda: True,
        workers: int = 1,
        attempts: int = 2,
    ) -> Dispatch:
        settings = Reconstruct.model_construct(
            workers=workers, attempts=attempts, time_limit=100.0, pause=10.0, withhold_failed=self.withhold_failed
        )
        return Dispatch(
            self.store,
            self.outbox,
            self.executor,
            work,
            self.recipe,
            settings,
            self.jobs,
            list(destinations),
            self.clock,
            scanners,
            room=lambda: self.room,
            disk_has_room=disk_has_room,
        )

    def a_job(self, key: str = "g", numbers: Sequence[int] = (1, 2)) -> int:
        return a_ready_job(self.store, key, numbers=numbers, now=self.clock())

    def state(self, job: int) -> State:
        return the_job(self.store, job).state


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path)


def test_a_ready_job_goes_to_a_worker_and_its_results_to_every_destination(tmp_path: Path) -> None:
    line = Line(tmp_path, ["pacs", "research"])
    job = line.a_job()
    line.dispatch()
    assert (line.state(job), line.dispatch.running) == (State.RECONSTRUCTING, {job})
    description = json.loads((line.jobs / str(job) / "job.json").read_text())
    assert description["instances"] == [str(an_instance(n).path) for n in (1, 2)]
    assert description["recipe"] == {"name": "test", "digest": RECIPE.digest()}
    assert description["created_at"] == the_job(line.store, job).created_at
    line.executor.end()
    assert (line.state(job), line.dispatch.running) == (State.SENDING, frozenset())
    assert [(row.destination, row.sop_instance_uid) for row in line.outbox.of(job)] == [
        (name, f"1.2.3.{number}") for name in ("pacs", "research") for number in (1, 2)
    ]


@pytest.mark.parametrize(
    ("grade", "withhold", "state"),
    [
        ("good", True, State.SENDING),
        ("review", True, State.SENDING),
        ("failed", True, State.REVIEW),
        ("failed", False, State.SENDING),
    ],
)
def test_a_failed_result_is_not_sent_unless_the_site_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grade: str, withhold: bool, state: State
) -> None:
    def graded(folder: Path, recipe: Recipe) -> Path:
        return a_report(work_well(folder, recipe), grade)

    work_well = work
    monkeypatch.setattr("tests.dicom_node.test_dispatch.work", graded)
    line = Line(tmp_path, withhold_failed=withhold)
    job = line.a_job()
    line.dispatch()
    line.executor.end()
    assert line.state(job) is state
    if state is State.REVIEW:
        assert "streaks is 3" in the_job(line.store, job).reason
        assert not line.outbox.of(job)


def test_no_more_jobs_than_workers(line: Line) -> None:
    first, second = line.a_job("1"), line.a_job("2")
    line.dispatch()
    line.dispatch()
    assert (line.state(first), line.state(second)) == (State.RECONSTRUCTING, State.READY)
    line.executor.end()
    line.dispatch()
    assert line.state(second) is State.RECONSTRUCTING


def test_a_phase_that_physics_contradicts_waits_for_somebody_to_decide(line: Line) -> None:
    job = line.a_job()
    line.dispatch()
    line.executor.end(Contradicted("either this or that"))
    assert (line.state(job), the_job(line.store, job).reason) == (State.REVIEW, "either this or that")
    line.dispatch()
    assert line.state(job) is State.REVIEW
    assert line.store.run_again(the_job(line.store, job), line.clock())
    line.dispatch()
    line.executor.end()
    assert line.state(job) is State.SENDING


def test_a_retry_uses_what_is_configured_of_the_scanner_by_then(line: Line) -> None:
    job = line.a_job()
    line.dispatch()
    line.executor.end(Contradicted("either this or that"))
    (line.jobs / str(job) / "stale").touch()
    line.store.run_again(the_job(line.store, job), line.clock())
    scanner = Scanner(station_name="MR1", phase_sign="flip")
    line.a_dispatch(scanners=[scanner])()
    described = json.loads((line.jobs / str(job) / "job.json").read_text())["scanners"]
    assert [Scanner.model_validate(known) for known in described] == [scanner]
    wanted = json.loads((line.jobs / str(job) / "job.json").read_text())["output"]
    assert Output.model_validate(wanted) == Output()
    assert not (line.jobs / str(job) / "stale").exists()


@pytest.mark.parametrize("error", [WorkerDied("killed by SIGKILL"), TimeLimitExceeded("100 s"), MemoryError("no more")])
def test_a_worker_that_dies_hands_its_job_back_until_the_ceiling(line: Line, error: Exception) -> None:
    job = line.a_job()
    line.dispatch()
    line.executor.end(error)
    assert (line.state(job), str(error) in the_job(line.store, job).reason) == (State.READY, True)
    line.clock.now += 9
    line.dispatch()
    assert line.state(job) is State.READY, "its pause has not ended"
    line.clock.now += 2
    line.dispatch()
    line.executor.end(error)
    found = the_job(line.store, job)
    assert (found.state, found.attempts) == (State.FAILED, 2)
    assert f"{error} (attempt 2 of 2)" in found.reason
    assert line.store.run_again(found, line.clock())
    line.dispatch()
    line.executor.end()
    assert line.state(job) is State.SENDING


def test_what_cannot_be_converted_fails_at_once_with_the_reason(line: Line) -> None:
    job = line.a_job()
    line.dispatch()
    line.executor.end(NotConvertible("two slice spacings"))
    found = the_job(line.store, job)
    assert (found.state, found.reason, found.attempts) == (State.FAILED, "two slice spacings", 1)


@pytest.mark.parametrize("error", [WorkerStopped("stopped"), CancelledError()])
def test_stopping_the_node_costs_a_job_no_attempt(line: Line, error: BaseException) -> None:
    job = line.a_job()
    line.dispatch()
    line.executor.end(error)
    found = the_job(line.store, job)
    assert (found.state, found.attempts, found.due_at) == (State.READY, 0, line.clock())


def test_a_killed_nodes_jobs_are_recovered_and_keep_their_attempts(line: Line) -> None:
    """A power cut is no fault of the job; one that takes the node down each time comes to an end all the same."""
    job = line.a_job()
    for _ in range(MOST_ENDS - 1):
        line.dispatch()
        assert line.state(job) is State.RECONSTRUCTING
        line.dispatch = line.a_dispatch()  # the process is killed and started again
        line.dispatch.recover()
        found = the_job(line.store, job)
        assert (found.state, found.attempts, found.reason) == (State.READY, 0, NODE_ENDED)
    line.dispatch()
    line.dispatch = line.a_dispatch()
    line.dispatch.recover()
    found = the_job(line.store, job)
    assert (found.state, found.reason) == (State.FAILED, f"{NODE_ENDED}, for the {MOST_ENDS}th time")
    line.store.advance(job, State.FAILED, State.READY, line.clock())
    line.dispatch()
    line.dispatch = line.a_dispatch()
    line.dispatch.recover()
    assert line.state(job) is State.READY, "who asks for it again gets no more than one try"


def test_a_lease_that_ends_brings_the_job_back(line: Line) -> None:
    job = line.a_job()
    line.store.claim(line.clock(), lease=50, ceiling=2)
    line.dispatch()
    assert line.state(job) is State.RECONSTRUCTING
    line.clock.now += 51
    line.dispatch()
    assert line.state(job) is State.RECONSTRUCTING, "it was given out again in the same round"
    assert the_job(line.store, job).attempts == 2


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("full"), RuntimeError("a fault of ours")])
def test_an_end_that_cannot_be_written_down_is_not_lost(
    line: Line, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    job = line.a_job()
    line.dispatch()
    with monkeypatch.context() as patch:
        patch.setattr(line.store, "advance", lambda *_, **__: (_ for _ in ()).throw(failure))
        line.executor.end()
        line.dispatch()
    is_written_later = isinstance(failure, sqlite3.Error)
    assert (line.state(job), line.dispatch.running) == (State.RECONSTRUCTING, {job} if is_written_later else set())
    if not is_written_later:
        line.clock.now += 1000  # its lease ends
        line.dispatch()
        line.executor.end()
    line.dispatch()
    assert (line.state(job), line.dispatch.running) == (State.SENDING, set())


def test_a_full_disk_costs_no_attempt_and_leaves_no_half_result(line: Line) -> None:
    job = line.a_job()
    part = line.jobs / str(job) / "result.part"
    for _ in range(5):
        line.dispatch()
        part.mkdir(parents=True)
        line.executor.end(OSError(errno.ENOSPC, "No space left on device"))
        found = the_job(line.store, job)
        assert (found.state, found.attempts, part.exists()) == (State.READY, 0, False)
        assert "begun again when there is room" in found.reason
        line.clock.now += 100
    line.dispatch()
    line.executor.end()
    assert line.state(job) is State.SENDING


def test_no_job_is_begun_on_a_disk_that_has_no_room_for_its_result(line: Line) -> None:
    job, room = line.a_job(), [False]
    line.dispatch = line.a_dispatch(disk_has_room=lambda: room[0])
    line.dispatch()
    assert (line.state(job), line.executor.calls) == (State.READY, [])
    room[0] = True
    line.dispatch()
    assert line.state(job) is State.RECONSTRUCTING


def test_without_a_destination_a_result_waits_for_one(tmp_path: Path) -> None:
    line = Line(tmp_path, [])
    job = line.a_job()
    line.dispatch()
    line.executor.end()
    line.dispatch()
    assert line.state(job) is State.RECONSTRUCTED
    line.a_dispatch(["pacs"])()
    assert line.state(job) is State.SENDING


def test_without_a_destination_no_result_is_read_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(tmp_path, [])
    job = line.a_job()
    line.dispatch()
    reads: list[Path] = []
    monkeypatch.setattr("dicom_node.dispatch.read_file_meta_info", reads.append)
    line.executor.end()
    line.dispatch()
    assert (line.state(job), reads) == (State.RECONSTRUCTED, [])


def lose(line: Line, job: int) -> None:
    for file in (line.jobs / str(job) / "result" / "dicom").iterdir():
        file.unlink()


def test_a_result_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    line = Line(tmp_path, [])
    job = line.a_job()
    line.dispatch()
    line.executor.end()
    lose(line, job)
    line.a_dispatch(["pacs"])()
    moves = line.store.journal()
    assert [move.target for move in moves][-3:] == [State.RECONSTRUCTED, State.READY, State.RECONSTRUCTING]
    assert "no results" in moves[-2].reason
    line.executor.end()
    assert line.state(job) is State.SENDING


def test_who_comes_late_to_a_lost_result_takes_no_folder_from_the_worker_that_makes_it_anew(tmp_path: Path) -> None:
    line = Line(tmp_path, [])
    job = line.a_job()
    line.dispatch()
    line.executor.end()
    lose(line, job)
    seen = the_job(line.store, job)
    dispatch = line.a_dispatch(["pacs"])
    dispatch()
    assert line.state(job) is State.RECONSTRUCTING
    dispatch._register(seen)  # the thread of the executor, which has read the job before
    assert (line.jobs / str(job) / "job.json").is_file()
    assert line.state(job) is State.RECONSTRUCTING


def test_a_result_that_is_lost_after_the_last_attempt_has_all_attempts_again(line: Line) -> None:
    job = line.a_job()
    line.dispatch()
    line.executor.end(WorkerDied("killed by SIGKILL"))
    line.clock.now += 11
    line.dispatch()
    line.executor.end()
    assert (line.state(job), the_job(line.store, job).attempts) == (State.SENDING, 0)
    line.store.advance(job, State.SENDING, State.READY, line.clock(), "a file is gone")
    line.dispatch()
    assert line.state(job) is State.RECONSTRUCTING


def test_images_that_are_gone_fail_the_job_by_name(line: Line) -> None:
    job = line.a_job()
    line.store.remove_instances([str(an_instance(1).path)])
    line.dispatch()
    assert (line.state(job), line.dispatch.running) == (State.FAILED, frozenset())
    assert "1 of its 2 images are gone" in the_job(line.store, job).reason


def test_a_start_that_fails_ends_the_round(line: Line) -> None:
    """It may have taken seconds: a line of such jobs must not keep the round, and with it the stop, for minutes."""
    jobs = [line.a_job(key) for key in "gh"]
    line.store.remove_instances([str(an_instance(1).path)])
    line.dispatch()
    assert [line.state(job) for job in jobs] == [State.FAILED, State.READY]
    line.dispatch()
    assert [line.state(job) for job in jobs] == [State.FAILED, State.FAILED]


def test_a_result_that_is_made_anew_goes_only_where_it_was_still_to_go(line: Line) -> None:
    """`resend --to` of a result whose folder has had its time: the archive, which has it, gets nothing."""
    line.dispatch = line.a_dispatch(("pacs", "workstation", "new"))
    job = line.a_job()
    line.dispatch()
    line.executor.end()
    for row in line.outbox.of(job):
        if row.destination == "pacs" or row.sop_instance_uid == "1.2.3.1":
            line.outbox.answered(row, "stored", line.clock(), status=0, comment="", due_at=0.0)
    line.store.database.execute("DELETE FROM deliveries WHERE destination = 'new'")
    make_anew(line.store, line.jobs, job, State.SENDING, line.clock(), "its folder is gone")
    line.dispatch()
    line.executor.end()
    assert {(row.destination, row.sop_instance_uid, row.outcome) for row in line.outbox.of(job)} == {
        *(("pacs", uid, "stored") for uid in ("1.2.3.1", "1.2.3.2")),
        ("workstation", "1.2.3.1", "stored"),
        ("workstation", "1.2.3.2", "pending"),
    }


def test_a_folder_left_by_another_job_of_that_number_is_not_mistaken_for_this_ones(line: Line) -> None:
    folder = line.jobs / "1"
    work(folder, RECIPE)
    (folder / "job.json").write_text("{}")
    assert line.a_job() == 1
    line.dispatch()
    assert not (folder / "result").exists()


def test_a_result_that_was_made_before_the_node_was_killed_is_kept(line: Line) -> None:
    job = line.a_job()
    line.dispatch()
    work(line.jobs / str(job), RECIPE)
    line.dispatch = line.a_dispatch()
    line.dispatch.recover()
    line.dispatch()
    assert (line.jobs / str(job) / "result").is_dir()


def test_the_pauses_before_a_job_is_begun_again_grow(line: Line) -> None:
    line.dispatch = line.a_dispatch(attempts=4)
    job = line.a_job()
    pauses = []
    for _ in range(3):
        line.dispatch()
        line.executor.end(WorkerDied("killed by SIGKILL"))
        pauses.append(the_job(line.store, job).due_at - line.clock())
        line.clock.now += pauses[-1]
    assert pauses == [10.0, 40.0, 160.0]
    line.dispatch()
    line.executor.end(WorkerDied("killed by SIGKILL"))
    assert line.state(job) is State.FAILED


def test_who_has_just_been_scanned_goes_before_a_cohort_and_who_is_asked_for_before_everybody(line: Line) -> None:
    cohort, asked, today = (line.a_job(key) for key in ("cohort", "asked", "today"))
    line.store.put(cohort, Priority.COHORT)
    line.store.put(asked, Priority.COHORT)
    assert line.store.put(asked, Priority.ASKED)
    assert not line.store.put(asked, Priority.ASKED)
    order: list[int] = []
    for _ in range(3):
        line.dispatch()
        order += line.dispatch.running
        line.executor.end()
    assert order == [asked, today, cohort]


def begun(line: Line) -> None:
    """The call is under way: its future cannot be cancelled any more."""
    line.executor.calls[0][0].set_running_or_notify_cancel()


def test_a_cancelled_job_loses_its_worker_and_what_it_made(line: Line) -> None:
    job, other = line.a_job(), line.a_job("other")
    line.dispatch()
    assert line.store.advance(job, State.RECONSTRUCTING, State.CANCELLED, line.clock(), "cancelled by anna")
    line.dispatch()
    found = the_job(line.store, job)
    assert (found.state, found.reason, line.outbox.of(job)) == (State.CANCELLED, "cancelled by anna", [])
    line.dispatch()
    assert line.dispatch.running == {other}


def test_a_job_that_is_cancelled_and_taken_up_again_waits_for_its_worker_to_end(line: Line) -> None:
    line.dispatch = line.a_dispatch(workers=2)
    job = line.a_job()
    line.dispatch()
    begun(line)
    line.store.advance(job, State.RECONSTRUCTING, State.CANCELLED, line.clock())
    assert line.store.take_up(the_job(line.store, job), line.clock())
    line.store.advance(job, State.WAITING, State.READY, line.clock())
    line.dispatch()
    assert (line.state(job), len(line.executor.calls)) == (State.READY, 1), "two workers have one folder"
    line.executor.end()
    assert line.state(job) is State.READY, "what was cancelled came back as the new one's result"
    line.dispatch()
    line.executor.end()
    assert (line.state(job), the_job(line.store, job).attempts) == (State.SENDING, 0)


@pytest.mark.parametrize("error", [None, WorkerStopped("stopped"), WorkerDied("SIGKILL"), NotConvertible("no brain")])
def test_whatever_becomes_of_its_worker_a_cancelled_job_stays_cancelled(line: Line, error: Exception | None) -> None:
    job = line.a_job()
    line.dispatch()
    begun(line)
    line.store.advance(job, State.RECONSTRUCTING, State.CANCELLED, line.clock())
    line.executor.end(error)
    found = the_job(line.store, job)
    assert (found.state, found.attempts, line.outbox.of(job)) == (State.CANCELLED, 1, [])


@pytest.fixture
def sized(line: Line, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A job of as many images needs as many GB."""
    monkeypatch.setattr("dicom_node.dispatch.need", lambda images: Need(len(images) * GB, f"{len(images)} voxels"))
    line.dispatch = line.a_dispatch(workers=4)
    return line


def test_a_job_that_can_never_fit_fails_at_once_and_says_what_to_do(sized: Line) -> None:
    sized.room = Room(2.5 * GB, 2.5 * GB, "this machine has; use a larger one")
    large, small = sized.a_job("large", (1, 2, 3)), sized.a_job("small", (1,))
    sized.dispatch()
    found = the_job(sized.store, large)
    assert (found.state, found.attempts) == (State.FAILED, 0)
    assert found.reason == (
        "3 voxels need about 3.0 GB of memory, more than the 2.5 GB that this machine has; use a larger one, and retry"
    )
    assert sized.dispatch.running == {small}
    sized.room = UNBOUNDED
    sized.store.run_again(found, sized.clock())
    sized.dispatch()
    assert sized.dispatch.running == {small, large}


def test_a_job_waits_for_running_ones_to_free_their_memory_and_lets_nobody_pass(sized: Line) -> None:
    sized.room = Room(8 * GB, 4 * GB, "")
    first, large, small = sized.a_job("1", (1, 2)), sized.a_job("2", (1, 2, 3)), sized.a_job("3", (1,))
    for _ in range(2):
        sized.dispatch()
        assert sized.dispatch.running == {first}
        assert the_job(sized.store, large).reason == (
            "waits for memory: 3 voxels need about 3.0 GB, 2.0 GB are free; it waits for a running job to end"
        )
    moves = sized.store.last_move()
    sized.dispatch()
    assert sized.store.last_move() == moves, "waiting is no move"
    sized.executor.end()
    sized.dispatch()
    assert sized.dispatch.running == {large, small}
    assert the_job(sized.store, large).reason == "a worker claimed it"


def test_a_job_that_waits_for_other_programs_keeps_no_smaller_one(sized: Line) -> None:
    sized.room = Room(8 * GB, 2 * GB, "")
    large, small = sized.a_job("1", (1, 2, 3)), sized.a_job("2", (1,))
    sized.dispatch()
    assert sized.dispatch.running == {small}
    assert "other programs need the rest" in the_job(sized.store, large).reason
    sized.room = Room(8 * GB, 7 * GB, "")
    sized.dispatch()
    assert sized.dispatch.running == {large, small}


def short_for(line: Line, seconds: float) -> None:
    """The dispatch looks all the time."""
    until = line.clock.now + seconds
    while line.clock.now < until:
        line.dispatch()
        line.clock.now = min(until, line.clock.now + LONGEST_GAP)
    line.dispatch()


def test_a_job_that_never_fits_beside_other_programs_fails_after_a_day_and_a_retry_begins_another(sized: Line) -> None:
    sized.room = Room(8 * GB, 2 * GB, "this machine has; use a larger one")
    job = sized.a_job("1", (1, 2, 3))
    short_for(sized, LONGEST_SHORTAGE / 2)
    sized.room = Room(8 * GB, 2.7 * GB, "this machine has; use a larger one")
    short_for(sized, LONGEST_SHORTAGE / 2 - 1)
    assert sized.state(job) is State.READY
    sized.clock.now += 1
    sized.dispatch()
    found = the_job(sized.store, job)
    assert (found.state, found.reason) == (
        State.FAILED,
        "3 voxels need about 3.0 GB of memory, and in 24 hours other programs never left more than 2.7 GB of the "
        "8.0 GB that this machine has; use a larger one, or end those programs, and retry",
    )
    assert sized.store.run_again(found, sized.clock())
    sized.dispatch()
    assert "other programs need the rest" in the_job(sized.store, job).reason


def test_a_moment_of_room_begins_the_day_anew(sized: Line) -> None:
    """Room that the node's own jobs hold is room: the large one waits for them, and that is no shortage."""
    short = Room(8 * GB, 2 * GB, "")
    sized.room = short
    large, small = sized.a_job("1", (1, 2, 3)), sized.a_job("2", (1, 2))
    sized.dispatch()
    assert sized.dispatch.running == {small}
    short_for(sized, LONGEST_SHORTAGE - 1)
    sized.room = Room(8 * GB, 4 * GB, "")
    sized.dispatch()
    assert "waits for a running job" in the_job(sized.store, large).reason
    sized.clock.now += 2
    sized.room = short
    sized.dispatch()
    assert sized.state(large) is State.READY
