"""Counts and lists agree with what the line left in the store, and cost the same however much there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_node import survey
from dicom_node.outbox import Outbox, Result
from dicom_node.settings import Send
from dicom_node.states import Priority, State
from dicom_node.store import Store
from dicom_node.survey import SECTIONS, Section
from tests.dicom_node.making import a_ready_job, the_job


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


def test_every_state_has_one_section_but_what_was_left_alone() -> None:
    placed = [state for states in SECTIONS.values() for state in states]
    assert sorted([*placed, State.FOREIGN]) == sorted(State)


def test_places_are_those_in_which_workers_take_the_jobs(store: Store, tmp_path: Path) -> None:
    for number in range(4):
        a_ready_job(store, f"g{number}", now=10.0 - number)
    store.put(2, Priority.COHORT)
    store.put(3, Priority.ASKED)
    lines = survey.lines(store, tmp_path, [State.READY])
    by_place = [line.id for line in sorted(lines, key=lambda line: line.place)]
    taken = []
    while (job := store.claim(100.0, lease=1, ceiling=3)) is not None:
        taken.append(job.id)
    assert by_place == taken == [3, 4, 1, 2]


def test_a_destination_is_silent_only_while_something_waits_that_was_tried(store: Store) -> None:
    outbox = Outbox(store)
    job = a_ready_job(store)
    store.claim(2.0, lease=1, ceiling=3)
    store.advance(job, State.RECONSTRUCTING, State.RECONSTRUCTED, 5.0)
    outbox.register(the_job(store, job), [Result("1.1", Path("/a")), Result("1.2", Path("/b"))], ["pacs"], 10.0)

    def silent() -> float:
        [target] = survey.targets(store, ["pacs"])
        return target.is_silent_for(100.0)

    assert silent() == 0.0
    assert survey.targets(store, ["pacs", "other"])[1].calls_at is None
    one, two = outbox.of(job)
    outbox.postpone([one, two], 20.0, comment="away", due_at=30.0)
    assert silent() == 90.0
    assert survey.targets(store, ["pacs"])[0].calls_at == 30.0
    outbox.put_off("pacs", 20.0, Send(first_pause=50.0))
    assert survey.targets(store, ["pacs"])[0].calls_at == 70.0
    outbox.answered(one, "stored", 40.0, status=0, comment="answered 0x0000", due_at=40.0)
    assert silent() == 60.0
    outbox.answered(two, "stored", 50.0, status=0, comment="answered 0x0000", due_at=50.0)
    outbox.settle(50.0)
    assert silent() == 0.0


@pytest.mark.parametrize(
    ("comment", "told"),
    [
        ("answered 0xA700 Doe^Jane is unknown", "answered 0xA700"),
        ("pacs took no TCP connection", "pacs took no TCP connection"),
        ("", ""),
    ],
)
def test_of_an_answer_only_the_status_is_told(comment: str, told: str) -> None:
    assert survey.told(comment) == told


def test_stages_are_read_while_they_are_written(tmp_path: Path) -> None:
    assert survey.last_stage(tmp_path / "nowhere") == ("", 0.0)
    progress = tmp_path / "progress.jsonl"
    progress.write_text("")
    assert survey.last_stage(tmp_path) == ("", 0.0)
    progress.write_text('{"at": 1.0, "stage": "unwrap"}\n{"at": 2.0, "sta')
    assert survey.last_stage(tmp_path) == ("unwrap", 1.0)


def test_sections_are_listed_newest_first_and_page_by_page(store: Store, tmp_path: Path) -> None:
    for number in range(5):
        a_ready_job(store, f"g{number}")
    first = survey.lines(store, tmp_path, SECTIONS[Section.ACTIVE], 2)
    rest = survey.lines(store, tmp_path, SECTIONS[Section.ACTIVE], before=first[-1].id)
    assert [line.id for line in [*first, *rest]] == [5, 4, 3, 2, 1]
