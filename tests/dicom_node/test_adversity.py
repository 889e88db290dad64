"""What a machine does to a node that serves: its clock is set, its database is locked, damaged or gone."""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from demo.archive import Archive
from dicom_node import store as stores
from dicom_node.backup import back_up
from dicom_node.clock import SteadyClock
from dicom_node.daemon import Daemon
from dicom_node.rebuild import DatabaseDamaged
from dicom_node.retention import Sweeper
from dicom_node.settings import Retention
from dicom_node.states import State
from tests.dicom_node.plays import play
from tests.dicom_node.test_daemon import a_config, a_study, send, serving, wait_for
from tests.peers import free_port, wait_until

DAY = 86400.0


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive(tmp_path / "archive") as archive:
        yield archive


class Date:
    """The date of the machine, which somebody sets."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    def clock(self) -> SteadyClock:
        return SteadyClock(self)


@pytest.mark.slow
@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_clock_that_is_set_by_a_day_delays_and_loses_nothing(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """While images are waited for, while an archive is waited for, and over a restart."""
    date = Date()
    config = a_config(tmp_path, archive, quiet_time=2.0)
    study = a_study(tmp_path)
    with serving(config, monkeypatch, clock=date.clock()) as daemon:
        send(study[:-1], daemon)
        wait_for(daemon, State.WAITING)
        date.ahead = jump
        send(study[-1:], daemon)
        wait_for(daemon, State.SENT)
        archive.__exit__(None, None, None)
        send(a_study(tmp_path, 2), daemon)
        wait_for(daemon, State.SENT, State.SENDING)
        wait_until(lambda: any(row.attempts for row in daemon._outbox.of(2)), "the archive was called in vain")
    date.ahead = 0.0
    with Archive(tmp_path / "archive", port=archive.port), serving(config, monkeypatch, clock=date.clock()) as daemon:
        wait_for(daemon, State.SENT, State.SENT)


def test_a_scan_that_began_before_the_clock_was_set_back_and_the_node_restarted_is_not_waited_for_a_day(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    date = Date()
    config = a_config(tmp_path, archive, quiet_time=2.0)
    date.ahead = DAY
    with serving(config, monkeypatch, clock=date.clock()) as daemon:
        send(a_study(tmp_path)[:-1], daemon)
        wait_for(daemon, State.WAITING)
    date.ahead = 0.0
    with serving(config, monkeypatch, clock=date.clock()) as daemon:
        wait_for(daemon, State.INCOMPLETE)


@pytest.mark.slow
def test_a_locked_database_delays_and_loses_nothing(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "BUSY_TIMEOUT", 0.05)
    config = a_config(tmp_path, archive)
    with serving(config, monkeypatch) as daemon, closing(sqlite3.connect(daemon.store.path)) as other:
        other.isolation_level = None
        other.execute("BEGIN IMMEDIATE")
        with capture_logs() as told:
            send(a_study(tmp_path), daemon)
            wait_until(lambda: any(e["event"] == "not_indexed_yet" for e in told), "the lock is in the way")
        other.execute("ROLLBACK")
        wait_for(daemon, State.SENT)


def damage(path: Path) -> None:
    """Overwrites pages of a database that is in use, as a failing disk or a copy over it does."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def test_a_node_whose_database_is_damaged_ends_and_its_next_start_knows_all(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    config = a_config(tmp_path, archive)
    daemon = Daemon(config, work=play)
    ended: list[BaseException] = []

    def run() -> None:
        try:
            daemon.run()
        except DatabaseDamaged as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: daemon.receiver._listeners, "the receiver listens")
    send(a_study(tmp_path), daemon)
    wait_for(daemon, State.SENT)
    daemon._ledger()
    known = daemon.store.jobs()
    send(a_study(tmp_path, 2), daemon)  # and of these no page tells
    damage(daemon.store.path)
    wait_until(lambda: ended, "the node ends", 60)
    thread.join(30)
    assert "start again: it is made anew then" in str(ended[0])
    with serving(config, monkeypatch) as daemon:
        wait_for(daemon, State.SENT, State.SENT)
        assert daemon.store.jobs()[:1] == known
        first = {row.sop_instance_uid for row in daemon._outbox.of(1)}
    assert {archive.sent[uid] for uid in first} == {1}, "what was sent before is not sent again"
    assert len(archive.paths) == 4
    assert list(config.node.state_folder.glob("node.db.broken-*"))


@pytest.mark.slow
def test_a_backup_of_a_busy_node_serves_elsewhere(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Archive(tmp_path / "dead", port=free_port())
    before = a_config(tmp_path / "one", archive, dead)
    with serving(before, monkeypatch) as daemon:
        send(a_study(tmp_path), daemon)
        written = "the living archive has it, and that is written down"
        wait_until(lambda: sum(row.outcome == "stored" for row in daemon._outbox.of(1)) == 2, written, 60)
        assert back_up(before.node.state_folder, tmp_path / "two" / "state", None).copied
    after = a_config(tmp_path / "two", archive, dead)
    with dead, serving(after, monkeypatch) as daemon:
        wait_for(daemon, State.SENT)
        assert daemon.store.objections() == []
    assert (len(dead.paths), set(archive.sent.values())) == (2, {1})


@pytest.mark.slow
def test_a_study_that_was_removed_and_comes_again_in_any_order_makes_no_second_result(
    tmp_path: Path, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = a_config(tmp_path, archive, quiet_time=1.0)
    images = config.node.state_folder / "images"
    study = a_study(tmp_path)
    with serving(config, monkeypatch) as daemon:
        send(study, daemon)
        wait_for(daemon, State.SENT)
        later = Retention(results=1.0, sources=1.0)
        Sweeper(
            daemon.store,
            daemon._spool,
            daemon._jobs_folder,
            later,
            lambda: time.time() + 2 * DAY,
            daemon.index.restore,
        )()
        assert not list(images.rglob("*.dcm"))
        assert not list(daemon._jobs_folder.iterdir())
        random.Random(1).shuffle(study)
        send(study[:5], daemon)
        wait_until(lambda: not daemon.store.open_studies() and len(daemon.store.indexed()) == 5, "some are looked at")
        send(study[5:], daemon)
        wait_until(lambda: not daemon.store.open_studies() and len(daemon.store.indexed()) == 24, "all are looked at")
        assert states_of(daemon) == [State.SENT]
        assert set(archive.sent.values()) == {1}
        [job] = daemon.store.jobs()
        assert daemon.store.run_again(job, daemon._clock())  # as `retry` does
        wait_until(lambda: list(daemon._jobs_folder.iterdir()), "it is made again", 60)
        wait_for(daemon, State.SENT)
        assert set(archive.sent.values()) == {1}, "to the same UIDs, which the archive has"


def states_of(daemon: Daemon) -> list[State]:
    return [job.state for job in daemon.store.jobs()]
