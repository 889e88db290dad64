"""The transition table, cell by cell, in Python and in the database."""

import itertools
import sqlite3
from pathlib import Path

import pytest

from dicom_node import states
from dicom_node.errors import IllegalTransition
from dicom_node.states import START, TRANSITIONS, State
from dicom_node.store import Store

CELLS = list(itertools.product(State, State))


def reach(store: Store, target: State) -> int:
    """A job that was walked to `target` by legal moves alone."""
    routes = {START: [START]}
    for here in (queue := [START]):
        for source, reached in TRANSITIONS:
            if source is here and reached not in routes:
                routes[reached] = [*routes[here], reached]
                queue.append(reached)
    key = f"group {len(store.jobs())}"
    job = store.open_job(key, 1, "1.2", ["1.2.3"], now=1.0).id
    for source, following in itertools.pairwise(routes[target]):
        assert store.advance(job, source, following, now=2.0)
    return job


@pytest.mark.parametrize(("source", "target"), CELLS)
def test_every_cell_is_allowed_or_refused_by_the_table(source: State, target: State) -> None:
    if (source, target) in TRANSITIONS:
        assert states.check(source, target) == TRANSITIONS[source, target]
    else:
        with pytest.raises(IllegalTransition, match=f"is {source} cannot become {target}"):
            states.check(source, target)


def test_the_database_allows_and_refuses_the_same_cells(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    for source, target in CELLS:
        job = reach(store, source)
        before = len(store.journal())
        move = "UPDATE jobs SET state = ?, changed_at = 3.0, reason = 'why' WHERE id = ?"
        if (source, target) in TRANSITIONS:
            store.database.execute(move, [target, job])
            last = store.journal()[-1]
            assert (last.job, last.source, last.target, last.reason, last.at) == (job, source, target, "why", 3.0)
        elif source is target:
            store.database.execute(move, [target, job])
            assert len(store.journal()) == before, "staying is no move"
        else:
            with pytest.raises(sqlite3.IntegrityError, match="no such move"):
                store.database.execute(move, [target, job])
            assert len(store.journal()) == before


def test_every_state_can_be_reached_and_none_but_sent_is_without_a_way_on() -> None:
    targets = {START} | {target for _, target in TRANSITIONS}
    assert targets == set(State)
    assert {source for source, _ in TRANSITIONS} == set(State)


def test_whatever_is_not_over_can_be_cancelled_and_taken_up_again() -> None:
    over = {State.FOREIGN, State.SENT, State.ARCHIVED, State.FAILED, State.REVIEW, State.CANCELLED}
    assert set(State) - over == states.CANCELLABLE
    assert [target for source, target in TRANSITIONS if source is State.CANCELLED] == [State.WAITING]


def test_a_job_that_has_begun_takes_no_more_images() -> None:
    begun = {State.RECONSTRUCTING, State.RECONSTRUCTED, State.SENDING, State.SENT, State.ARCHIVED, State.REFUSED}
    assert set(State) == states.GROWING | begun | {State.CANCELLED}
    for state in states.GROWING - {State.WAITING}:
        assert (state, State.WAITING) in TRANSITIONS, f"a late image must reopen a job that is {state}"
    for state in begun:
        assert (state, State.WAITING) not in TRANSITIONS, f"{state} makes a revision instead"
