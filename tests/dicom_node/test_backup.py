"""A backup taken while the node works is a node that lost nothing."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node import backup
from dicom_node.backup import NoBackup, back_up
from dicom_node.index import Index
from dicom_node.ledger import Ledger
from dicom_node.rebuild import open_store
from dicom_node.spool import Spool
from dicom_node.states import State
from tests.dicom_node.making import STUDY
from tests.dicom_node.test_index import describe, keep
from tests.dicom_node.test_retention import WEEK, House

NOW = 1.7e9


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path / "state")
    house.take(1, 2)
    for state, key in ((State.SENT, "a"), (State.SENDING, "b")):
        job = house.job(state, 1, 2, key=key)
        result = house.folder / "jobs" / str(job) / "result" / "dicom"
        result.mkdir(parents=True)
        (result / "1.dcm").write_bytes(b"map")
        (house.folder / "jobs" / str(job) / "job.json").write_text("{}")
    (house.folder / "pseudonym.key").write_bytes(b"secret")
    Ledger(house.store, house.folder / "ledger")()
    return house


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and backup.GONE not in path.relative_to(folder).parts
        and not path.name.startswith(("node.db", backup.MARK))
    }


def test_what_is_restored_serves_on_where_the_node_was(house: House, tmp_path: Path) -> None:
    back_up(house.folder, tmp_path / "backup", None)
    keep(house.spool, 3)  # after the backup: it is lost with the disk
    known = house.store.jobs()
    house.store.close()
    shutil.rmtree(house.folder)
    shutil.copytree(tmp_path / "backup", house.folder)
    with closing(open_store(house.folder, NOW)) as store:
        Index(store, Spool(house.folder), describe).reconcile()
        assert store.jobs() == known
        assert len(store.instances(STUDY)) == 2
        assert store.objections() == []
    assert (house.folder / "pseudonym.key").read_bytes() == b"secret"
    assert (house.folder / "jobs" / "2" / "result" / "dicom" / "1.dcm").read_bytes() == b"map"


def test_the_second_time_only_what_is_new_is_copied_and_what_is_gone_goes(house: House, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    first = back_up(house.folder, target, None)
    assert (first.kept, first.removed) == (0, 0)
    assert files(target) == files(house.folder)
    again = back_up(house.folder, target, None)
    assert (again.copied, again.kept, again.removed) == (0, first.copied, 0)
    house.clock.now += 2 * WEEK
    house.store.advance(2, State.SENDING, State.SENT, house.clock())
    house.clock.now += 2 * WEEK
    house.sweep(sources=7, results=7)
    keep(house.spool, 3)
    third = back_up(house.folder, target, None)
    assert files(target) == files(house.folder)
    assert third.removed == 2 + 4
    assert third.lost == 0


def test_what_is_lost_on_the_node_stays_in_the_backup_and_is_told(house: House, tmp_path: Path) -> None:
    target = tmp_path / "backup"
    back_up(house.folder, target, None)
    before = files(target)
    shutil.rmtree(house.folder / "images")
    (house.folder / "images").mkdir()
    found = back_up(house.folder, target, None)
    assert (found.lost, found.removed) == (2, 0)
    assert files(target) == before
    house.open()  # it starts, and forgets them
    assert back_up(house.folder, target, None).removed == 2
    [day] = (target / backup.GONE).iterdir()
    assert {name: content for name, content in before.items() if name.startswith("images/")} == files(day)


def test_what_was_put_aside_goes_weeks_later(house: House, tmp_path: Path) -> None:
    back_up(house.folder, tmp_path / "backup", None)
    today = datetime.now(UTC).date()
    for days in (29, 31):
        (tmp_path / "backup" / backup.GONE / (today - timedelta(days)).isoformat()).mkdir(parents=True)
    back_up(house.folder, tmp_path / "backup", None)
    [kept] = (tmp_path / "backup" / backup.GONE).iterdir()
    assert kept.name == (today - timedelta(29)).isoformat()


def test_two_at_once_do_not_harm_each_other(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_online = backup.copy_online

    def meanwhile(connection: sqlite3.Connection, copy: Path) -> None:
        with pytest.raises(NoBackup, match="under way"):
            back_up(house.folder, tmp_path / "backup", None)
        copy_online(connection, copy)

    monkeypatch.setattr(backup, "copy_online", meanwhile)
    assert back_up(house.folder, tmp_path / "backup", None).copied


def test_a_folder_that_goes_while_it_is_read_is_no_trouble_and_a_target_that_goes_is(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = backup._copy

    def and_the_job_goes(source: Path, target: Path) -> None:
        copy(source, target)
        shutil.rmtree(house.folder / "jobs" / "2", ignore_errors=True)

    with monkeypatch.context() as patch:
        patch.setattr(backup, "_copy", and_the_job_goes)
        back_up(house.folder, tmp_path / "one", None)

    def unmounted(source: Path, target: Path) -> None:
        raise FileNotFoundError(2, "gone", str(target))

    monkeypatch.setattr(backup, "_copy", unmounted)
    with pytest.raises(FileNotFoundError):
        back_up(house.folder, tmp_path / "two", None)


def test_images_that_came_after_the_database_was_copied_are_taken_in_at_the_start(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_online = backup.copy_online

    def and_then_one_comes(connection: sqlite3.Connection, copy: Path) -> None:
        copy_online(connection, copy)
        house.take(3)

    monkeypatch.setattr(backup, "copy_online", and_then_one_comes)
    back_up(house.folder, tmp_path / "backup", None)
    with closing(open_store(tmp_path / "backup", NOW)) as store:
        Index(store, Spool(tmp_path / "backup"), describe).reconcile()
        assert len(store.instances(STUDY)) == 3
        assert store.objections() == []


def test_a_writer_is_not_held_up_and_the_copy_is_of_one_moment(house: House, tmp_path: Path) -> None:
    with closing(sqlite3.connect(house.folder / "node.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE jobs SET reason = 'half'")
        back_up(house.folder, tmp_path / "backup", None)
        writer.execute("COMMIT")
    with closing(sqlite3.connect(tmp_path / "backup" / "node.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT COUNT(*) FROM jobs WHERE reason = 'half'").fetchone() == (0,)


def test_killed_half_way_it_is_finished_the_next_time(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = []
    copy = shutil.copy2

    def until_killed(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 3:
            target.write_bytes(b"half")
            raise KeyboardInterrupt
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(backup.shutil, "copy2", until_killed)
        with pytest.raises(KeyboardInterrupt):
            back_up(house.folder, tmp_path / "backup", None)
    back_up(house.folder, tmp_path / "backup", None)
    assert files(tmp_path / "backup") == files(house.folder)


def test_the_configuration_goes_along(house: House, tmp_path: Path) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[node]\n")
    back_up(house.folder, tmp_path / "backup", config)
    assert (tmp_path / "backup" / "node.toml").read_text() == "[node]\n"


@pytest.mark.parametrize("where", ["state/inside", ".", "holiday"])
def test_a_folder_that_holds_something_else_is_left_alone(house: House, tmp_path: Path, where: str) -> None:
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "photo").touch()
    with pytest.raises(NoBackup, match="name a"):
        back_up(house.folder, tmp_path / where, None)
    assert [path.name for path in (tmp_path / "holiday").iterdir()] == ["photo"]


def test_where_nobody_served_there_is_nothing_to_back_up(tmp_path: Path) -> None:
    with pytest.raises(NoBackup, match="nothing to back up"):
        back_up(tmp_path / "state", tmp_path / "backup", None)
