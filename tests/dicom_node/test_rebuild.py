"""The database from the files: what a node knew it knows again, and what cannot be mended is told with its remedy."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dicom_node import rebuild as rebuilding
from dicom_node import store as stores
from dicom_node.index import Index
from dicom_node.ledger import Ledger
from dicom_node.migrations import UnknownSchema
from dicom_node.outbox import Outbox, Result
from dicom_node.rebuild import DatabaseUnusable, damage, open_store, rebuild
from dicom_node.spool import Spool
from dicom_node.states import State
from dicom_node.store import Objection, Store
from tests.dicom_node.making import STUDY, a_ready_job, an_instance, the_job
from tests.dicom_node.test_index import describe
from tests.dicom_node.test_retention import ROADS, House

NOW = 1.7e9


class Node:
    """A state folder with a job in every state, each with two results for two destinations as far as it has any."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "node.db"
        store = Store(self.path)
        outbox = Outbox(store, frozenset({"second"}))
        for number, state in enumerate(State, 1):
            job = store.open_job(f"g{number}", 1, STUDY, [an_instance(number).sop_instance_uid], NOW).id
            here = State.WAITING
            for there in ROADS[state]:
                if there is State.SENDING:
                    results = [Result(f"9.{job}.{n}", folder / f"{n}.dcm", "1.2") for n in (1, 2)]
                    outbox.register(the_job(store, job), results, ["first", "second"], NOW)
                    [row, *_] = outbox.of(job)
                    outbox.answered(row, "stored", NOW, status=0, comment="", due_at=NOW)
                else:
                    store.advance(job, here, there, NOW, f"it was {there}")
                here = there
        self.known = self._all(store)
        Ledger(store, folder / "ledger")()
        store.close()

    def _all(self, store: Store) -> dict[str, object]:
        return {table: store.rows(f"SELECT * FROM {table}") for table in ("jobs", "deliveries", "journal")}

    def now(self) -> dict[str, object]:
        with closing(open_store(self.folder, NOW)) as store:
            return self._all(store)

    @property
    def set_aside(self) -> list[Path]:
        return self.beside("broken")

    def beside(self, word: str) -> list[Path]:
        found = self.folder.glob(f"node.db.{word}-*")
        return [path for path in found if not path.name.endswith(("-wal", "-shm"))]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def overwritten(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def zeroed_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:40960] = bytes(36864)
    path.write_bytes(content)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE contacts (name TEXT)")


@pytest.mark.parametrize("harm", [overwritten, zeroed_inside, cut_off, emptied, another, Path.unlink])
def test_a_damaged_database_is_set_aside_and_made_anew(node: Node, harm: object) -> None:
    assert callable(harm)
    harm(node.path)
    was_there = node.path.exists()
    content = node.path.read_bytes() if was_there else b""
    assert node.now() == node.known
    assert [path.read_bytes() for path in node.set_aside] == ([content] if was_there else [])
    assert node.now() == node.known
    assert len(node.set_aside) == was_there, "a second time there was nothing to do"


def test_a_sound_one_is_left_alone(node: Node) -> None:
    inode = node.path.stat().st_ino
    assert node.now() == node.known
    assert (node.path.stat().st_ino, node.set_aside) == (inode, [])


def test_a_folder_in_which_nobody_served_gets_an_empty_one(tmp_path: Path) -> None:
    with closing(open_store(tmp_path, NOW)) as store:
        assert store.jobs() == []
    assert not list(tmp_path.glob("node.db.broken*"))


def test_what_is_made_anew_keeps_the_laws(node: Node) -> None:
    node.path.unlink()
    with closing(open_store(node.folder, NOW)) as store:
        [sent] = store.jobs(State.SENT)
        with pytest.raises(sqlite3.IntegrityError, match="no such move"):
            store.database.execute("UPDATE jobs SET state = 'waiting' WHERE id = ?", [sent.id])
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            store.database.execute("DELETE FROM journal")
        new = store.open_job("new", 1, STUDY, ["1.9"], NOW)
        assert new.id == max(job.id for job in store.jobs()[:-1]) + 1
        assert store.advance(sent.id, State.SENT, State.READY, NOW)


def test_commitment_that_was_asked_is_asked_again(node: Node) -> None:
    with closing(Store(node.path)) as store:
        store.database.execute(
            "UPDATE deliveries SET commitment = 'asked', transaction_uid = '2.25.1' WHERE commitment = 'due'"
        )
        Ledger(store, node.folder / "ledger")()
    node.path.unlink()
    assert node.now() == node.known


def test_pages_are_brought_up_to_date_before_a_sound_one_is_made_anew(node: Node) -> None:
    with closing(Store(node.path)) as store:
        job = store.jobs(State.SENDING)[0]
        for row in Outbox(store).of(job.id):
            Outbox(store).answered(row, "stored", NOW, status=0, comment="", due_at=NOW)
        Outbox(store).settle(NOW)
        node.known = node._all(store)
    found = rebuild(node.folder, NOW)
    assert node.now() == node.known
    assert found.jobs["sent"] == 2
    assert [found.set_aside] == node.beside("replaced"), "nothing was broken"
    assert node.set_aside == []


@pytest.mark.parametrize("moment", ["restore", "set aside", "replace"])
def test_killed_while_it_is_made_anew_it_is_made_anew_again(
    node: Node, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    overwritten(node.path)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if moment == "restore":
            patch.setattr(rebuilding, "_adopt", killed)
        elif moment == "set aside":
            patch.setattr(rebuilding, "_set_aside", killed)
        else:
            patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            open_store(node.folder, NOW)
    assert node.now() == node.known


def test_a_job_without_a_page_keeps_its_number_and_its_result_and_is_not_sent(tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / "7"
    (folder / "result").mkdir(parents=True)
    job = {"job": 7, "group": "g", "revision": 2, "created_at": 5.0, "instances": ["a", "b"]}
    (folder / "job.json").write_text(json.dumps(job))
    source = {"study_instance_uid": STUDY, "sop_instance_uids": ["1.2", "1.1"]}
    (folder / "result" / "report.json").write_text(json.dumps({"source": source}))
    (tmp_path / "jobs" / "9").mkdir()  # one that had not got that far
    (tmp_path / "jobs" / "9" / "job.json").write_text("{")
    with closing(open_store(tmp_path, NOW)) as store:
        [found] = store.jobs()
        assert (found.id, found.state, found.images, found.revision) == (7, State.REVIEW, ("1.1", "1.2"), 2)
        assert (found.group_key, found.created_at) == ("g", 5.0)
        assert [(move.source, move.target) for move in store.journal()] == [(None, State.REVIEW)]
        assert a_ready_job(store, "new") == 10, "the number of a folder is not given again"


def test_a_reprocessed_job_without_a_page_keeps_its_recipe_or_is_left_where_it_is(tmp_path: Path) -> None:
    source = {"study_instance_uid": STUDY, "sop_instance_uids": ["1.1"]}
    job = {"group": "g/0123", "revision": 1, "created_at": 5.0, "reprocessed": 1}
    for number, own in ((3, {"own_recipe": '{"recipe": {}}'}), (4, {})):
        folder = tmp_path / "jobs" / str(number)
        (folder / "result").mkdir(parents=True)
        (folder / "job.json").write_text(json.dumps(job | own))
        (folder / "result" / "report.json").write_text(json.dumps({"source": source}))
    with closing(open_store(tmp_path, NOW)) as store:
        [found] = store.jobs()
        assert (found.id, found.recipe) == (3, '{"recipe": {}}')
    assert (tmp_path / "jobs" / "4" / "result" / "report.json").is_file()


def test_a_page_of_another_world_costs_that_job_alone(node: Node) -> None:
    page = node.folder / "ledger" / "2.json"
    content = json.loads(page.read_text())
    content["job"]["state"] = "beamed up"
    page.write_text(json.dumps(content))
    (node.folder / "ledger" / "3.json").write_text("{}")
    node.path.unlink()
    with closing(open_store(node.folder, NOW)) as store:
        assert {job.id for job in store.jobs()} == set(range(1, len(State) + 1)) - {2, 3}


def test_what_was_not_taken_is_told_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    note = {"reason": "0 bytes", "status": "0xC000", "calling_ae_title": "MR1"}
    refused = spool.quarantine(b"x", note, NOW)
    conflict = spool.conflicts / "ab" / "cd.dcm"
    conflict.parent.mkdir()
    conflict.write_bytes(b"y")
    rebuild(tmp_path, NOW)
    with closing(open_store(tmp_path, NOW)) as store:
        told = {objection.path: (objection.peer, objection.reason) for objection in store.objections()}
    assert told[str(refused)] == ("MR1", "0 bytes (answered 0xC000)")
    assert "other content" in told[str(conflict)][1]


@pytest.mark.parametrize("mode", ["locking_mode = EXCLUSIVE", "journal_mode = WAL"])
def test_a_locked_one_is_no_damaged_one(node: Node, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(stores, "BUSY_TIMEOUT", 0.05)
    with closing(sqlite3.connect(node.path, isolation_level=None)) as other:
        other.execute(f"PRAGMA {mode}")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("UPDATE jobs SET due_at = due_at")
        with pytest.raises(DatabaseUnusable, match=r"another program holds .*node\.db locked: end it \(fuser -v"):
            open_store(node.folder, NOW)
        assert node.set_aside == []
        other.execute("ROLLBACK")
    assert node.now() == node.known


def test_one_that_cannot_be_opened_is_not_replaced(node: Node) -> None:
    node.path.rename(node.folder / "elsewhere")
    node.path.mkdir()
    (node.path / "file").touch()
    with pytest.raises(DatabaseUnusable, match="cannot be used"):
        open_store(node.folder, NOW)


def test_one_of_a_newer_software_is_not_replaced(node: Node) -> None:
    with closing(sqlite3.connect(node.path)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('qsm_node', 'time_travel', '')"
        )
    with pytest.raises(UnknownSchema, match="time_travel"):
        open_store(node.folder, NOW)
    assert node.set_aside == []


def test_a_folder_that_was_moved_finds_its_files_where_they_are_now(tmp_path: Path) -> None:
    before, after = tmp_path / "old" / "it's", tmp_path / "new%_place"
    house = House(before)
    house.take(1, 2)
    job = house.job(State.RECONSTRUCTED, 1, 2)
    result = Result("9.9", before / "jobs" / str(job) / "result" / "dicom" / "r.dcm")
    Outbox(house.store).register(the_job(house.store, job), [result], ["pacs"], NOW)
    house.store.object_to(Objection(NOW, str(before / "quarantine" / "q.json"), "", "bad"))
    house.store.object_to(Objection(NOW, "/elsewhere/x", "", "bad"))
    digests = house.store.rows("SELECT sop_instance_uid, digest FROM instances")
    house.store.close()
    before.rename(after)
    for _ in range(2):
        with closing(open_store(after, NOW)) as store:
            Index(store, Spool(after), describe).reconcile()
            assert [row.path for row in Outbox(store).of(job)] == [after / "jobs" / str(job) / "result/dicom/r.dcm"]
            assert all(instance.path.is_file() for instance in store.instances(STUDY))
            assert all(Path(path).is_file() for path in store.indexed())
            assert [o.path for o in store.objections()] == [str(after / "quarantine" / "q.json"), "/elsewhere/x"]
            assert store.rows("SELECT sop_instance_uid, digest FROM instances") == digests


def test_damage_is_told_in_words(tmp_path: Path) -> None:
    assert damage(tmp_path / "node.db") == "it is gone"
    (tmp_path / "node.db").touch()
    assert damage(tmp_path / "node.db") == "it is empty"
    overwritten(tmp_path / "node.db")
    assert damage(tmp_path / "node.db") == "file is not a database"
