"""Health tells what keeps the node from its work, and nothing that a destination or a person has to mend."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from dicom_node.index import Reading
from dicom_node.store import Store
from dicom_node.trail import Standing
from dicom_node.watch import health
from dicom_node.watch.health import FAILURES_IN_A_ROW, Check, Health, as_data
from dicom_node.watch.pulse import Pulse

Make = Callable[..., Health]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(health, "DATABASE_PATIENCE", 0.1)
    Store(tmp_path / "node.db").close()

    def made(trouble: str = "", enough: int = 0, pulse: Pulse | None = None) -> Health:
        return Health(pulse or Pulse(), lambda: trouble, tmp_path / "node.db", tmp_path, enough)

    return made


def failing(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.ok]


def test_a_node_that_works_is_well(make: Make) -> None:
    assert as_data(make().ready())["status"] == "ok"
    assert [check.name for check in make().ready()] == ["line", "rounds", "database", "disk"]
    assert [check.name for check in make().live()] == ["line", "rounds"]


def test_a_line_that_stands_still_is_not_alive(make: Make) -> None:
    [line, _] = make(trouble="the last round of group ended 200 s ago").live()
    assert (line.ok, line.found) == (False, "the last round of group ended 200 s ago")


def test_a_round_that_fails_again_and_again_is_told_without_its_words(make: Make) -> None:
    pulse = Pulse()
    for number in range(FAILURES_IN_A_ROW):
        assert failing(make(pulse=pulse).ready()) == [], number
        pulse.failed("group", OSError("Doe^Jane"))
    [_, rounds] = make(pulse=pulse).live()
    assert rounds.found == "5 rounds of group failed in a row (OSError); the log says why"
    pulse.ended("group")
    assert failing(make(pulse=pulse).ready()) == []


def test_a_database_that_takes_nothing_is_told_and_is_left_as_it_was(make: Make, tmp_path: Path) -> None:
    assert failing(make().ready()) == []
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert failing(make().ready()) == ["database"]
    other.execute("ROLLBACK")
    assert failing(make().ready()) == []
    assert other.execute("SELECT COUNT(*) FROM bookmarks").fetchone() == (0,)
    other.execute("DROP TABLE bookmarks")
    other.close()
    assert failing(make().ready()) == ["database"]


def test_a_full_disk_is_told(make: Make) -> None:
    [*_, disk] = make(enough=2**60).ready()
    assert not disk.ok
    assert "GiB are needed" in disk.found
    assert as_data([disk])["status"] == "failing"


def test_a_silent_audit_trail_is_told_and_keeps_the_node_alive(make: Make) -> None:
    well, ill = Standing(5, 0, 3, 2.0, ""), Standing(5, 1, 3, 700.0, "the audit repository has taken nothing")
    found = {standing: replace(make(), audit=partial(lambda it: it, standing)) for standing in (well, ill)}
    assert found[well].ready()[-1] == Check("audit", True, "3 messages wait, 0 were lost")
    assert found[ill].ready()[-1] == Check(
        "audit", False, "the audit repository has taken nothing; 3 messages wait, 1 were lost"
    )
    assert failing(found[ill].live()) == []


def test_a_spool_that_is_read_is_told_and_is_a_fault_only_when_it_stands_still(make: Make) -> None:
    going, standing = Reading(7), Reading(7, "nothing could be written down for 200 s; the log says why")
    found = {one: replace(make(), reading=partial(lambda it: it, one)).ready()[-1] for one in (going, standing)}
    assert found[going] == Check("spool", True, "7 files are still to be read, and jobs wait for them")
    assert found[standing] == Check("spool", False, f"{found[going].found}: {standing.trouble}")
