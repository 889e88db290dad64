"""From every earlier schema, with data in it, to the present one; and no step is edited once it is there."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlite_utils import Database, Migrations

from dicom_node import migrations
from dicom_node.ledger import Ledger
from dicom_node.states import State
from dicom_node.store import Store

STEPS = {
    "first": "94b998b2f1f4",
    "objections_of_a_file": "68106c4912ee",
    "storage_commitment": "38d075c2d09b",
    "catalogue": "ca91a0d44e83",
    "fetches": "ab6d307fdfde",
    "callers": "7c2e1ea961d1",
    "queue": "e9161e46244e",
    "housekeeping": "c6afea4ec8d0",
    "watching": "87147ec73fab",
    "procedure_steps": "5408ba05acae",
    "jobs_of_study": "23de9148a986",
    "manner": "c4c99f96bbc0",
    "denied": "176bce7fe9b2",
}
"""A digest of the schema that each step leads to; a changed one is of a step that was edited."""

names = [step.name for step in migrations.migrations.pending(Database(memory=True))]


def at(path: Path, step: str) -> Database:
    """A database as the software of that step left it."""
    then = Migrations("qsm_node")
    then._migrations = migrations.migrations._migrations[: names.index(step) + 1]
    database = Database(sqlite3.connect(path, isolation_level=None))
    then.apply(database)
    database.conn.executemany(
        "INSERT INTO transitions (source, target, meaning) VALUES (?, ?, 'as it was')",
        [("waiting", "ready"), ("ready", "reconstructing"), ("reconstructing", "failed")],
    )
    return database


def fill(database: Database) -> None:
    """A row in each table that a node of then had, by the columns that were there from the start."""
    tables = set(database.table_names())
    database.execute("INSERT INTO studies VALUES ('1.2', 3, 2)")
    description = json.dumps({"digest": "ab" * 32, "path": "/x"})
    database.execute(
        """INSERT INTO instances (sop_instance_uid, study_instance_uid, path, received_at, software, description)
        VALUES ('1.2.1', '1.2', '/x', 5.0, 'old', ?)""",
        [description],
    )
    if "digest" in database["instances"].columns_dict:
        database.execute("UPDATE instances SET digest = ?", ["ab" * 32])
    database.execute("INSERT INTO objections (at, path, peer, reason) VALUES (1.0, '/q', 'MR', 'bad')")
    database.execute(
        """INSERT INTO jobs (group_key, revision, study_instance_uid, state, reason, images, due_at, created_at,
        changed_at) VALUES ('g', 1, '1.2', 'waiting', 'born', '["1.2.1"]', 1.0, 1.0, 1.0)"""
    )
    for state in ("ready", "reconstructing", "failed"):
        database.execute("UPDATE jobs SET state = ?", [state])
    database.execute(
        """INSERT INTO deliveries (job, destination, sop_instance_uid, path, outcome, due_at, changed_at)
        VALUES (1, 'pacs', '9.9', '/r', 'stored', 2.0, 2.0)"""
    )
    if "transactions" in tables:
        database.execute("INSERT INTO transactions VALUES ('2.25.1', 1, 'pacs', 1.0, 2.0, NULL)")
        database.execute("INSERT INTO pledges VALUES ('MR', '2.25.2', '[]', 1.0, 0, 1.0, NULL, '')")
    if "fetches" in tables:
        database.execute("INSERT INTO fetches VALUES ('pacs', '1.2', '1.2.5', 7, 'found', '', 0, 1.0, 1.0)")


def content(database: Database) -> dict[str, list[dict[str, Any]]]:
    own = {"transitions", "_sqlite_migrations", "sqlite_sequence"}
    return {name: list(database.query(f"SELECT * FROM {name}")) for name in database.table_names() if name not in own}


@pytest.mark.parametrize("step", names)
def test_what_an_earlier_version_knew_this_one_knows(tmp_path: Path, step: str) -> None:
    path = tmp_path / "node.db"
    with closing(at(path, step)) as database:
        fill(database)
        before = content(database)
    with closing(Store(path)) as store:
        after = content(store.database)
        for table, rows in before.items():
            kept = [{key: row[key] for key in old} for row, old in zip(after[table], rows, strict=True)]
            assert kept == rows, table
        [job] = store.jobs()
        assert (job.state, [move.target for move in store.journal()]) == (
            State.FAILED,
            ["waiting", "ready", "reconstructing", "failed"],
        )
        assert store.rows("SELECT digest FROM instances") == [{"digest": "ab" * 32}]
        assert store.database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert store.database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        with pytest.raises(sqlite3.IntegrityError, match="no such move"):
            store.database.execute("UPDATE jobs SET state = 'archived'")
        assert store.run_again(job, 9.0), "the moves of this version are allowed"
        Ledger(store, tmp_path / "ledger")()
        assert (tmp_path / "ledger" / "1.json").is_file(), "a job of before gets a page too"


@pytest.mark.parametrize("step", names[:-1])
def test_a_copy_of_before_is_kept_until_the_next_update(tmp_path: Path, step: str) -> None:
    path = tmp_path / "node.db"
    with closing(at(path, step)) as database:
        fill(database)
        before = content(database)
    (tmp_path / "node.db.before-stone_age").touch()
    Store(path).close()
    Store(path).close()
    [copy] = tmp_path.glob("node.db.before-*")
    assert copy.name == f"node.db.before-{names[names.index(step) + 1]}"
    with closing(Database(copy)) as kept:
        assert content(kept) == before


def test_a_new_database_and_one_of_this_version_need_no_copy(tmp_path: Path) -> None:
    for _ in range(2):
        Store(tmp_path / "node.db").close()
    assert not list(tmp_path.glob("node.db.before-*"))


def test_a_step_that_fails_leaves_the_database_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.db"
    with closing(at(path, names[0])) as database:
        fill(database)
        before = content(database)

    class Broken(sqlite3.Error):
        pass

    def fails(database: Database) -> None:
        database.execute("ALTER TABLE jobs ADD COLUMN half TEXT")
        raise Broken

    last = migrations.migrations._migrations[-1]
    monkeypatch.setattr(last, "fn", fails)
    with pytest.raises(Broken):
        Store(path)
    with closing(Database(path)) as database:
        assert content(database) == before


def test_no_step_was_edited_after_it_was_released(tmp_path: Path) -> None:
    assert list(STEPS) == names, "pin the digest of each new step below the others"
    for step, digest in STEPS.items():
        with closing(at(tmp_path / f"{step}.db", step)) as database:
            schema = database.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '\\_sqlite%' ESCAPE '\\' "
                "ORDER BY type, name"
            ).fetchall()
        found = hashlib.sha256(" ".join(" ".join(sql for (sql,) in schema).split()).encode()).hexdigest()[:12]
        assert found == digest, f"the step {step} was edited: add another step instead"
