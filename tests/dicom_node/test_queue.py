"""What people ask of jobs while a node runs: cancel, retry, resend, reprocess, prioritise.

Once and twice, alone and against whoever moves the same jobs at the same moment.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_node.alone import alone_in
from dicom_node.commands import main
from dicom_node.commands.cancel import cancel
from dicom_node.commands.resend import resend
from dicom_node.commands.retry import retry
from dicom_node.config import recipe_file
from dicom_node.deliver import Courier
from dicom_node.dispatch import Dispatch
from dicom_node.errors import NodeError
from dicom_node.manner import Manner, digest_of
from dicom_node.outbox import Outbox, Result
from dicom_node.recipes import Recipe, read_recipe
from dicom_node.regroup import place
from dicom_node.reprocess import NotReprocessed, reprocess
from dicom_node.send import Delivery
from dicom_node.settings import Reconstruct
from dicom_node.states import CANCELLABLE, Priority, State
from dicom_node.store import Job, Store
from tests.dicom_node.making import Clock, a_file, a_group, a_ready_job, a_report, an_instance, the_job
from tests.dicom_node.test_states import reach

DEFAULT, FAST = (read_recipe(recipe_file(name)) for name in ("default", "fast"))
MANNER = Manner(DEFAULT, [], {}).written()


class Node:
    """A state folder, and the command line of somebody who has a job there."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder / "state"
        self.folder.mkdir()
        self.store = Store(self.folder / "node.db")
        self.outbox = Outbox(self.store)
        self.config = folder / "node.toml"
        self.config.write_text(
            f'[node]\nstate_folder = "{self.folder}"\n'
            + "".join(
                f'[[destination]]\nname = "{name}"\nhost = "127.0.0.1"\nport = 104\nae_title = "PACS"\n'
                for name in ("pacs", "research")
            )
        )
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, stdout, stderr of a command."""
        self._capsys.readouterr()
        code = main([*map(str, arguments), "--config", str(self.config)])
        told = self._capsys.readouterr()
        return code, told.out, told.err

    def state(self, job: int) -> State:
        return the_job(self.store, job).state

    def sent(self, key: str = "g", destinations: Sequence[str] = ("pacs",)) -> int:
        """A job of which everything is stored, with its files."""
        job = a_ready_job(self.store, key)
        self.store.claim(2.0, lease=1, ceiling=9)
        self.store.keep_manner(job, MANNER)
        self.store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 2.0)
        folder = self.folder / "jobs" / str(job) / "result" / "dicom"
        uids = [f"1.2.3.{job}.{number}" for number in (1, 2)]
        results = [Result(uid, a_file(folder / f"{uid}.dcm", uid)) for uid in uids]
        self.outbox.register(the_job(self.store, job), results, destinations, 3.0)
        store_all(self.outbox, job)
        self.outbox.settle(4.0)
        return job

    def walked(self, job: int) -> list[State]:
        return [move.target for move in self.store.journal() if move.job == job]


def store_all(outbox: Outbox, job: int) -> None:
    for row in outbox.of(job):
        outbox.answered(row, "stored", 4.0, status=0, comment="", due_at=4.0)


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Node:
    return Node(tmp_path, capsys)


# cancel


@pytest.mark.parametrize("state", sorted(CANCELLABLE))
def test_whatever_is_not_over_is_cancelled_once_and_says_by_whom(node: Node, state: State) -> None:
    job = reach(node.store, state)
    assert node("cancel", job) == (0, f"job {job} is cancelled; it was {state}\n", "")
    found = the_job(node.store, job)
    assert found.state is State.CANCELLED
    assert found.reason.startswith("cancelled by ")
    assert found.reason.endswith(f" UTC, when it was {state}")
    assert node("cancel", job) == (0, f"job {job} is cancelled already\n", "")
    assert the_job(node.store, job) == found
    assert node.outbox.next_due("pacs", 1e12) == []


@pytest.mark.parametrize("state", sorted(set(State) - CANCELLABLE - {State.CANCELLED}))
def test_what_is_over_cannot_be_cancelled_and_the_others_are(node: Node, state: State) -> None:
    over, ready = reach(node.store, state), reach(node.store, State.READY)
    code, said, complained = node("cancel", over, 99, ready)
    assert (code, said) == (1, f"job {ready} is cancelled; it was ready\n")
    assert f"job {over} is {state}: there is nothing to stop" in complained
    assert "there is no job 99" in complained
    assert node.state(over) is state


def test_nothing_more_of_a_cancelled_job_is_sent_and_a_retry_sends_all_of_it(node: Node) -> None:
    job = node.sent()
    node.outbox.resend(job, ["pacs"], 5.0)
    sent: list[str] = []

    def send(files: Sequence[Path], to: object, settings: object) -> object:
        for path in files:
            sent.append(path.stem)
            cancel(node.store, the_job(node.store, job), 6.0)
            yield Delivery(path.stem, path, 0, "stored")

    courier(node, send)()
    courier(node, send)()
    assert (sent, node.state(job)) == ([f"1.2.3.{job}.1"], State.CANCELLED)
    assert [row.outcome for row in node.outbox.of(job)] == ["stored", "pending"]
    assert node("retry", job)[0] == 0
    assert node.state(job) is State.WAITING


def courier(node: Node, send: Callable[..., object]) -> Courier:
    from dicom_node.call import Destination, SendSettings
    from dicom_node.settings import Send

    to = Destination("pacs", "127.0.0.1", 104, "PACS")
    jobs = node.folder / "jobs"
    return Courier(
        node.store,
        node.outbox,
        to,
        Send(),
        SendSettings(),
        send,  # type: ignore[arg-type]  # a generator by any name
        jobs,
        Clock(10.0),
        lambda: False,
    )


def test_a_cancelled_job_takes_late_images_in_and_a_retry_makes_it_of_all(node: Node) -> None:
    """Nobody wants what he has cancelled to come back with the next image, as a revision of itself."""
    for number in (1, 2):
        node.store.add_instance(an_instance(number))
    place(node.store, a_group([1]), 1.0)
    [job] = node.store.jobs()
    node("cancel", job.id)
    place(node.store, a_group([1, 2]), 2.0)
    [found] = node.store.jobs()
    assert (found.state, len(found.images)) == (State.CANCELLED, 2)
    for study, arrivals in node.store.open_studies():
        node.store.settle_study(study, arrivals)
    assert node("retry", job.id) == (0, f"job {job.id} is taken up again\n", "")
    assert node.store.open_studies(), "nobody would look at it"
    place(node.store, a_group([1, 2]), 3.0)
    assert node.state(job.id) is State.READY


def test_a_cancelled_job_that_has_a_revision_is_run_as_it_was(node: Node) -> None:
    job = a_ready_job(node.store)
    node.store.claim(2.0, lease=1, ceiling=9)
    place(node.store, a_group([1, 2]), 3.0)
    node("cancel", job)
    assert node("retry", job)[0] == 0
    assert [(j.state, j.revision) for j in node.store.jobs()] == [(State.READY, 1), (State.READY, 2)]


# retry


def test_all_of_one_state_are_retried(node: Node) -> None:
    failed = [reach(node.store, State.FAILED) for _ in range(3)]
    refused, review = reach(node.store, State.REFUSED), reach(node.store, State.REVIEW)
    code, said, _ = node("retry", "--all", "failed")
    assert (code, said) == (0, "".join(f"job {job} is run again\n" for job in failed))
    assert {node.state(job) for job in failed} == {State.READY}
    assert (node.state(refused), node.state(review)) == (State.REFUSED, State.REVIEW)
    assert node("retry", "--all", "failed") == (0, "no job is failed\n", "")
    assert "asked for by " in the_job(node.store, failed[0]).reason


@pytest.mark.parametrize("arguments", [[], ["1", "--all", "failed"]])
def test_a_retry_of_nothing_and_of_everything_is_wrong_usage(node: Node, arguments: list[str]) -> None:
    assert node("retry", *arguments)[0] == 2


# resend


def test_a_job_is_sent_again_to_all_or_to_one_or_to_a_new_destination(node: Node) -> None:
    job = node.sent()
    assert node("resend", job, "--to", "research") == (0, f"job {job} is sent again to research: 2 objects\n", "")
    assert Counter((row.destination, row.outcome) for row in node.outbox.of(job)) == {
        ("pacs", "stored"): 2,
        ("research", "pending"): 2,
    }
    assert node.state(job) is State.SENDING
    assert node("resend", job)[0] == 0
    assert {row.outcome for row in node.outbox.of(job)} == {"pending"}
    assert node("resend", job)[0] == 0, "twice is as good as once"
    assert len(node.outbox.of(job)) == 4
    store_all(node.outbox, job)
    node.outbox.settle(9.0)
    assert node.state(job) is State.SENT


def test_what_is_to_be_committed_to_is_asked_for_anew(node: Node) -> None:
    job = node.sent()
    node.store.advance(job, State.SENT, State.ARCHIVED, 5.0)
    Outbox(node.store, frozenset({"pacs"})).resend(job, ["pacs"], 6.0)
    assert {row.commitment for row in node.outbox.of(job)} == {"due"}
    assert node.walked(job)[-2:] == [State.ARCHIVED, State.SENDING]


@pytest.mark.parametrize("state", sorted(set(State) - {State.SENDING, State.SENT, State.REFUSED, State.ARCHIVED}))
def test_what_has_no_results_cannot_be_sent_again(node: Node, state: State) -> None:
    job = reach(node.store, state)
    code, _, complained = node("resend", job)
    assert (code, node.state(job)) == (1, state)
    assert f"job {job} is {state}" in complained


def test_an_unknown_destination_is_named_with_those_there_are(node: Node) -> None:
    code, _, complained = node("resend", node.sent(), "--to", "nowhere")
    assert code == 2
    assert "expected one of pacs, research" in complained


def test_results_that_have_had_their_time_are_made_anew_when_they_are_sent_again(node: Node) -> None:
    job = node.sent()
    for row in node.outbox.of(job):
        row.path.unlink()
    node.outbox.resend(job, ["pacs"], 5.0)
    courier(node, lambda *_: iter(()))()
    assert node.state(job) is State.READY


@pytest.mark.parametrize("command", ["retry", "resend"])
def test_what_could_not_be_made_anew_stays_as_it_is(node: Node, command: str) -> None:
    job = node.sent()
    node.store.remove_instances([str(an_instance(1).path)])
    if command == "resend":
        assert node("resend", job)[0] == 0, "its results are still there"
        store_all(node.outbox, job)
        node.outbox.settle(6.0)
        for row in node.outbox.of(job):
            row.path.unlink(missing_ok=True)  # both destinations get the same file
    code, _, complained = node(command, job)
    assert (code, node.state(job)) == (1, State.SENT)
    assert "1 of its 1 images are gone from the node" in complained
    with alone_in(node.store.path.parent) as tell:
        tell({"reads_anew": True})
        assert "has yet to read 1 of its 1 images" in node(command, job)[2]


@pytest.mark.parametrize("command", ["retry", "resend"])
def test_what_could_not_be_made_alike_stays_as_it_is_and_the_way_out_is_told(node: Node, command: str) -> None:
    job = node.sent()
    of_another = MANNER.replace(digest_of(MANNER), "of an earlier version")
    node.store.keep_manner(job, of_another)
    for row in node.outbox.of(job):
        row.path.unlink(missing_ok=True)
    code, _, complained = node(command, job)
    assert (code, node.state(job)) == (1, State.SENT)
    assert "was followed by another version of the node" in complained
    assert f"qsm-node reprocess {job} --recipe NAME" in complained
    node.store.keep_manner(job, "")
    code, _, complained = node(command, job)
    assert (code, node.state(job)) == (1, State.SENT)
    assert "an earlier version of the node made it and did not write down how" in complained
    node.store.keep_manner(job, MANNER)
    assert node(command, job)[0] == 0
    if command == "retry":
        node.store.claim(1e12, lease=1, ceiling=9)
        node.store.advance(job, State.RECONSTRUCTING, State.FAILED, 8.0)
        node.store.keep_manner(job, of_another)
        assert (node(command, job)[0], node.state(job)) == (1, State.FAILED), "it would fail again"


# reprocess


def test_reprocessing_makes_a_job_beside_the_first_once_for_each_recipe(node: Node) -> None:
    job = a_ready_job(node.store)
    first = the_job(node.store, job)
    assert node("reprocess", job, "--recipe", "fast") == (0, f"job {job} is reprocessed as job 2\n", "")
    assert node("reprocess", job, "--recipe", "fast") == (
        0,
        f"job {job} was reprocessed as job 2, which is ready\n",
        "",
    )
    assert node("reprocess", 2, "--recipe", "medi0") == (0, "job 2 is reprocessed as job 3\n", "")
    assert the_job(node.store, job) == first
    second, third = the_job(node.store, 2), the_job(node.store, 3)
    assert (second.images, second.revision, second.priority) == (first.images, 1, Priority.COHORT)
    assert second.reason.startswith("asked for by ")
    assert second.reason.endswith(f"job {job} once more, with the recipe fast")
    assert [node.store.reprocessed_before(one) for one in (second, third)] == [0, 1]


def test_the_recipe_that_made_a_job_makes_no_other(node: Node) -> None:
    job = a_ready_job(node.store)
    code, _, complained = node("reprocess", job, "--recipe", "default")
    assert (code, len(node.store.jobs())) == (1, 1)
    assert "qsm-node retry runs it again" in complained
    made = node.folder / "jobs" / str(job) / "job.json"
    made.parent.mkdir(parents=True)
    made.write_text(json.dumps({"recipe": {"name": "fast", "digest": FAST.digest()}}))
    assert node("reprocess", job, "--recipe", "fast")[0] == 1, "it was made so, whatever the node does now"
    assert node("reprocess", job, "--recipe", "default")[0] == 0


@pytest.mark.parametrize("state", [State.WAITING, State.INCOMPLETE, State.FOREIGN])
def test_what_is_not_whole_is_not_reprocessed(node: Node, state: State) -> None:
    job = the_job(node.store, reach(node.store, state))
    with pytest.raises(NotReprocessed, match=f"is {state}"):
        reprocess(node.store, job, FAST, DEFAULT, 1.0, "")


def test_images_that_are_gone_are_not_reprocessed(node: Node) -> None:
    job = a_ready_job(node.store, numbers=(1, 2))
    node.store.remove_instances([str(an_instance(2).path)])
    with pytest.raises(NotReprocessed, match="1 of the 2 images of job 1 are gone"):
        reprocess(node.store, the_job(node.store, job), FAST, DEFAULT, 1.0, "")
    with alone_in(node.store.path.parent) as tell:
        tell({"reads_anew": True})
        with pytest.raises(NotReprocessed, match="has yet to read 1 of the 2 images of job 1"):
            reprocess(node.store, the_job(node.store, job), FAST, DEFAULT, 1.0, "")


def test_late_images_make_a_revision_of_the_first_and_leave_the_reprocessed_alone(node: Node) -> None:
    job = node.sent()
    made, _ = reprocess(node.store, the_job(node.store, job), FAST, DEFAULT, 5.0, "asked")
    for number in (1, 2):
        node.store.add_instance(an_instance(number))
    place(node.store, a_group([1, 2]), 6.0)
    assert [(j.group_key, j.revision, len(j.images)) for j in node.store.jobs()] == [
        ("g", 1, 1),
        (made.group_key, 1, 1),
        ("g", 2, 2),
    ]
    revised, _ = reprocess(node.store, node.store.jobs()[-1], FAST, DEFAULT, 7.0, "asked")
    assert (revised.group_key, revised.revision) == (made.group_key, 2)


def test_a_reprocessed_job_that_is_cancelled_is_taken_up_with_its_recipe(node: Node) -> None:
    made, _ = reprocess(node.store, the_job(node.store, a_ready_job(node.store)), FAST, DEFAULT, 5.0, "asked")
    node("cancel", made.id)
    assert node("retry", made.id)[0] == 0
    found = the_job(node.store, made.id)
    assert (found.state, found.recipe) == (State.READY, made.recipe)


# prioritise


def test_a_job_is_put_first_and_what_waits_for_nothing_is_not(node: Node) -> None:
    ready, sent = reach(node.store, State.READY), reach(node.store, State.SENT)
    assert node("prioritise", ready) == (0, f"job {ready} goes first\n", "")
    assert node("prioritise", ready) == (0, f"job {ready} goes first already\n", "")
    code, _, complained = node("prioritise", sent)
    assert code == 1
    assert "waits for nothing" in complained


def test_todays_patient_is_sent_before_a_cohort(node: Node) -> None:
    cohort, today = node.sent("cohort"), node.sent("today")
    node.store.put(cohort, Priority.COHORT)
    for job in (cohort, today):
        node.outbox.resend(job, ["pacs"], 5.0)
    order = []
    done: set[int] = set()
    while rows := node.outbox.next_due("pacs", 6.0, done):
        order.append(rows[0].job)
        done.add(rows[0].job)
    assert order == [today, cohort]


# against each other


def together(*tasks: Callable[[], None]) -> None:
    """All at once, each in a thread; whatever one raises is raised."""
    gate = threading.Barrier(len(tasks))

    def at_once(task: Callable[[], None]) -> None:
        gate.wait()
        task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(at_once, task) for task in tasks]:
            future.result()


def test_a_job_that_is_cancelled_while_it_moves_on_is_cancelled(node: Node) -> None:
    jobs = [a_ready_job(node.store, str(number)) for number in range(20)]

    def move_on() -> None:
        for job in jobs:
            if node.store.claim(2.0, lease=60, ceiling=9, only=job):
                node.store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 3.0)
                node.outbox.register(the_job(node.store, job), [Result("1.2", Path("/x"))], ["pacs"], 4.0)

    def stop() -> None:
        for job in jobs:
            cancel(node.store, the_job(node.store, job), 5.0)

    together(move_on, stop, stop)
    assert {node.state(job) for job in jobs} == {State.CANCELLED}
    assert [node.walked(job).count(State.CANCELLED) for job in jobs] == [1] * len(jobs)
    assert node.outbox.next_due("pacs", 1e12) == []


def test_what_is_asked_for_again_while_it_ends_is_never_over_with_something_to_send(node: Node) -> None:
    jobs = [node.sent(str(number)) for number in range(10)]
    over = threading.Event()

    def deliver() -> None:
        while not over.is_set():
            for job in jobs:
                store_all(node.outbox, job)
            node.outbox.settle(6.0)

    def ask() -> None:
        try:
            for _ in range(10):
                for job in jobs:
                    assert resend(node.store, node.outbox, the_job(node.store, job), ["pacs", "research"], 5.0)
        finally:
            over.set()

    def look() -> None:
        while not over.is_set():
            found = node.store.rows(
                """SELECT j.id, j.state FROM jobs j JOIN deliveries d ON d.job = j.id
                WHERE j.state <> 'sending' AND d.outcome = 'pending'"""
            )
            assert found == []

    together(deliver, ask, look)
    for job in jobs:
        store_all(node.outbox, job)
    node.outbox.settle(7.0)
    assert {node.state(job) for job in jobs} == {State.SENT}


def test_no_folder_ever_has_two_workers_whoever_cancels_and_retries(node: Node) -> None:
    """The dispatcher goes round, and two people press every button there is."""
    jobs = [a_ready_job(node.store, str(number)) for number in range(4)]
    busy: set[str] = set()
    twice: list[str] = []
    guard, over = threading.Lock(), threading.Event()

    def work(folder: Path, recipe: Recipe) -> Path:
        with guard:
            twice.extend({folder.name} & busy)
            busy.add(folder.name)
        a_file(folder / "result" / "dicom" / "1.dcm", f"1.2.3.{folder.name}")
        over.wait(0.01)
        with guard:
            busy.discard(folder.name)
        return a_report(folder / "result")

    def go_round() -> None:
        while not over.is_set():
            dispatch()
            for study, arrivals in node.store.open_studies():
                for job in node.store.jobs(State.WAITING):
                    node.store.advance(job.id, State.WAITING, State.READY, 3.0)
                node.store.settle_study(study, arrivals)

    def press(buttons: Sequence[Callable[[Job], object]]) -> None:
        for _ in range(15):
            for number in jobs:
                for button in buttons:
                    try:
                        button(the_job(node.store, number))
                    except NodeError:
                        continue  # it stands elsewhere just now

    def anna() -> None:
        press([lambda job: cancel(node.store, job, 5.0), lambda job: retry(node.store, node.outbox, job, 6.0)])

    def bert() -> None:
        try:
            press([lambda job: retry(node.store, node.outbox, job, 6.0), lambda job: cancel(node.store, job, 5.0)])
        finally:
            over.set()

    with ThreadPoolExecutor(4) as executor:
        dispatch = Dispatch(
            node.store,
            node.outbox,
            executor,
            work,
            Recipe("test", {}),
            Reconstruct(workers=4, pause=0.0),
            node.folder / "jobs",
            ["pacs"],
            Clock(10.0),
        )
        together(go_round, anna, bert)
    assert twice == []
    assert busy == set()
    for number in jobs:
        job = the_job(node.store, number)
        if job.state is State.CANCELLED:
            retry(node.store, node.outbox, job, 11.0)
    assert {node.state(number) for number in jobs} <= {State.WAITING, State.READY, State.SENDING, State.RECONSTRUCTED}
