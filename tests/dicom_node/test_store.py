"""The store: idempotent, refusing, and safe among threads, processes and crashes."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_node import migrations
from dicom_node.errors import IllegalTransition
from dicom_node.migrations import UnknownSchema
from dicom_node.states import State
from dicom_node.store import Objection, Store
from tests.dicom_node.making import a_ready_job, an_instance, the_job


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "node.db")


def make(store: Store, key: str = "g", now: float = 1.0) -> int:
    job = store.open_job(key, 1, "1.2.3", ["1.2.3.4.1"], now).id
    assert store.advance(job, State.WAITING, State.READY, now)
    return job


def test_an_instance_comes_back_as_it_went_in_and_counts_once(store: Store) -> None:
    assert store.add_instance(an_instance())
    assert not store.add_instance(replace(an_instance(), received_at=200.0, path=Path("/spool/else.dcm")))
    assert store.instances("1.2.3") == [an_instance()]
    assert store.open_studies() == [("1.2.3", 1)]


def test_an_instance_without_a_path_of_its_own_is_an_error_and_not_ignored(store: Store) -> None:
    store.add_instance(an_instance(1))
    with pytest.raises(sqlite3.IntegrityError, match=r"instances\.path"):
        store.add_instance(replace(an_instance(2), path=an_instance(1).path))
    assert store.open_studies() == [("1.2.3", 1)], "half a transaction was left behind"


def test_a_study_stays_open_for_what_came_while_it_was_looked_at(store: Store) -> None:
    store.add_instance(an_instance(1))
    [(study, arrivals)] = store.open_studies()
    store.add_instance(an_instance(2))
    store.settle_study(study, arrivals)
    assert store.open_studies() == [(study, 2)]
    store.settle_study(study, 2)
    assert store.open_studies() == []


def test_removed_files_are_forgotten_and_their_study_is_looked_at_again(store: Store) -> None:
    store.add_instance(an_instance(1))
    store.add_instance(an_instance(2))
    store.settle_study("1.2.3", 2)
    store.remove_instances([str(an_instance(1).path), "/spool/never-known.dcm"])
    assert store.instances("1.2.3") == [an_instance(2)]
    assert store.open_studies() == [("1.2.3", 3)]


def test_paths_keep_the_order_asked_for(store: Store) -> None:
    for number in (1, 2, 3):
        store.add_instance(an_instance(number))
    asked = [an_instance(n).sop_instance_uid for n in (3, 1)]
    assert store.paths([*asked, "9.9"]) == [str(an_instance(n).path) for n in (3, 1)]


def test_advance_moves_only_from_the_state_it_names(store: Store) -> None:
    job = make(store)
    assert not store.advance(job, State.WAITING, State.READY, 2.0)
    with pytest.raises(IllegalTransition, match="ready cannot become sent"):
        store.advance(job, State.READY, State.SENT, 2.0)
    assert store.advance(job, State.READY, State.WAITING, 2.0, "late")
    found = store.job(job)
    assert found is not None
    assert (found.state, found.reason, found.changed_at) == (State.WAITING, "late", 2.0)


def test_of_many_threads_one_advances_and_one_claims(store: Store) -> None:
    job = store.open_job("g", 1, "1.2.3", [], 1.0).id
    start = threading.Barrier(8)

    def advance(_: int) -> bool:
        start.wait()
        return store.advance(job, State.WAITING, State.READY, 2.0)

    def claim(_: int) -> bool:
        start.wait()
        return store.claim(3.0, lease=10, ceiling=3) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(advance, range(8))) == 1
        assert sum(pool.map(claim, range(8))) == 1
    assert [m.target for m in store.journal()] == [State.WAITING, State.READY, State.RECONSTRUCTING]


def test_claims_come_in_the_order_of_becoming_due_and_end_at_the_ceiling(store: Store) -> None:
    late, early = make(store, "late", now=20.0), make(store, "early", now=10.0)
    assert store.claim(5.0, lease=1, ceiling=2) is None, "nothing is due yet"
    first = store.claim(30.0, lease=7, ceiling=2)
    assert first is not None
    assert (first.id, first.attempts, first.lease_until) == (early, 1, 37.0)
    second = store.claim(30.0, lease=7, ceiling=2)
    assert second is not None
    assert second.id == late
    for _ in range(2):
        store.advance(early, State.RECONSTRUCTING, State.READY, 31.0, due_at=40.0)
        assert store.claim(39.0, lease=7, ceiling=2) is None
        store.claim(40.0, lease=7, ceiling=2)
    found = store.job(early)
    assert found is not None
    assert (found.state, found.attempts) == (State.READY, 2), "the third attempt was never given"
    store.forget_attempts(early, 1)
    again = store.claim(41.0, lease=7, ceiling=2)
    assert again is not None
    assert again.id == early


def test_one_group_has_one_job_for_each_revision(store: Store) -> None:
    first = store.open_job("g", 1, "1.2.3", ["b", "a"], 1.0)
    assert store.open_job("g", 1, "1.2.3", ["c"], 2.0) == first
    assert first.images == ("a", "b")
    second = store.open_job("g", 2, "1.2.3", ["a", "b", "c"], 3.0)
    assert store.latest("g") == second
    assert second.reason.startswith("revision 2")
    assert store.jobs() == [first, second]
    assert store.jobs(State.READY) == []


def test_the_journal_cannot_be_rewritten_nor_a_job_be_born_elsewhere_or_deleted(store: Store) -> None:
    make(store)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        store.database.execute("UPDATE journal SET reason = 'better'")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        store.database.execute("DELETE FROM journal")
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        store.database.execute("DELETE FROM jobs")
    with pytest.raises(sqlite3.IntegrityError, match="begins as waiting"):
        store.database.execute(
            """INSERT INTO jobs (group_key, revision, study_instance_uid, state, reason, images, due_at, created_at,
            changed_at) VALUES ('x', 1, '1', 'sent', '', '[]', 0, 0, 0)"""
        )


def test_objections_of_the_same_file_count_once(store: Store) -> None:
    objection = Objection(1.0, "/q/1.dcm", "SCANNER", "0 bytes")
    store.object_to(objection)
    store.object_to(replace(objection, at=2.0))
    store.object_to(Objection(3.0, None, "SCANNER", "no room"))
    store.object_to(Objection(4.0, None, "SCANNER", "no room"))
    assert [o.at for o in store.objections()] == [1.0, 3.0, 4.0]


def test_durable_settings_hold_on_every_connection(store: Store) -> None:
    def settings() -> tuple[str, int, int]:
        pragma = store.database.execute
        return (
            pragma("PRAGMA journal_mode").fetchone()[0],
            pragma("PRAGMA synchronous").fetchone()[0],
            pragma("PRAGMA foreign_keys").fetchone()[0],
        )

    with ThreadPoolExecutor(1) as pool:
        assert settings() == pool.submit(settings).result() == ("wal", 2, 1)


def test_migrations_and_the_table_of_moves_are_applied_once_and_kept_up_to_date(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    store.database.execute("DELETE FROM transitions WHERE source = 'ready'")
    store.database.execute("INSERT INTO transitions VALUES ('sent', 'waiting', 'an older software allowed it')")
    job = Store(tmp_path / "node.db").open_job("g", 1, "1", [], 1.0).id
    assert store.advance(job, State.WAITING, State.READY, 1.0)
    assert store.advance(job, State.READY, State.RECONSTRUCTING, 1.0)
    assert not migrations.migrations.pending(store.database)
    assert ("sent", "waiting") not in set(store.database.execute("SELECT source, target FROM transitions"))


def test_who_only_looks_changes_nothing_and_is_told_what_he_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    sqlite3.connect(path).close()
    with pytest.raises(UnknownSchema, match=r"lacks first.*older qsm-node.*qsm-node serve"):
        Store(path, owner=False)
    store = Store(path)
    store.database.execute("DELETE FROM transitions WHERE source = 'ready'")
    before = list(store.database.conn.iterdump())
    assert Store(path, owner=False).jobs() == []
    assert list(store.database.conn.iterdump()) == before, "the table of the node that runs was replaced"


@pytest.mark.parametrize("owner", [True, False])
def test_the_database_of_a_newer_software_is_refused(tmp_path: Path, owner: bool) -> None:
    path = tmp_path / "node.db"
    Store(path).database.execute(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('qsm_node', 'telepathy', '2099')"
    )
    with pytest.raises(UnknownSchema, match=r"has telepathy.*newer"):
        Store(path, owner=owner)


def test_a_process_that_is_killed_between_two_statements_leaves_neither(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    job = make(store)
    script = """
import os, signal, sys
from pathlib import Path
from dicom_node.states import State
from dicom_node.store import Store
store = Store(Path(sys.argv[1]))
store.claim(2.0, lease=10, ceiling=3)
with store.transaction():
    store.advance(int(sys.argv[2]), State.RECONSTRUCTING, State.RECONSTRUCTED, 3.0)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script, store.path, str(job)], check=False)
    assert ended.returncode == -9
    assert [m.target for m in store.journal()] == [State.WAITING, State.READY, State.RECONSTRUCTING]
    assert store.advance(job, State.RECONSTRUCTING, State.READY, 4.0), "the dead process held a lock"


def test_an_object_that_comes_again_and_again_is_not_searched_in_all_that_were_refused(store: Store) -> None:
    plan = store.rows(
        "EXPLAIN QUERY PLAN SELECT 1 FROM objections WHERE path = :path AND reason = :reason",
        {"path": "", "reason": ""},
    )
    assert ["USING INDEX objections_of_path" in row["detail"] for row in plan] == [True]


def test_what_a_clock_that_was_ahead_has_put_off_is_due_at_the_next_start(tmp_path: Path) -> None:
    store = Store(tmp_path / "node.db")
    ahead, soon = a_ready_job(store, "ahead", now=90000.0), a_ready_job(store, "soon", now=50.0)
    store.hasten(10.0, 60.0)
    assert [the_job(store, job).due_at for job in (ahead, soon)] == [10.0, 50.0]


def test_who_was_away_is_called_at_the_next_start_and_what_came_in_part_is_not_asked_for_out_of_turn(
    store: Store,
) -> None:
    for series, attempts in (("away", 0), ("part", 3)):
        store.database.execute(
            """INSERT INTO fetches (peer, study_instance_uid, series_instance_uid, images, state, reason, attempts,
                due_at, changed_at) VALUES ('pacs', '1.2', ?, 1, 'found', '', ?, 50, 0)""",
            [series, attempts],
        )
    store.database.execute(
        "INSERT INTO pledges (ae_title, transaction_uid, instances, asked_at, due_at) VALUES ('MR', '1', '[]', 0, 50)"
    )
    store.hasten(10.0, 60.0)
    rows = store.rows("SELECT series_instance_uid, due_at FROM fetches ORDER BY series_instance_uid")
    assert [tuple(row.values()) for row in rows] == [("away", 10.0), ("part", 50.0)]
    assert store.rows("SELECT due_at FROM pledges") == [{"due_at": 10.0}]
