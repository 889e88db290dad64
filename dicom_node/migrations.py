"""The schema of the node's database, as numbered steps that are never edited once released.

The database is an index of the spool and the memory of the jobs.  Images can be indexed again from the spool; a job
done again makes the same UIDs.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlite_utils import Database, Migrations

from dicom_node.errors import NodeError
from dicom_node.states import TRANSITIONS

migrations = Migrations("qsm_node")


@migrations()
def first(database: Database) -> None:
    database.executescript("""
        CREATE TABLE transitions (
            source TEXT NOT NULL,
            target TEXT NOT NULL,
            meaning TEXT NOT NULL,
            PRIMARY KEY (source, target)
        ) WITHOUT ROWID;

        -- arrivals counts images; settled is its value when the study was last grouped and nothing was left to wait for
        CREATE TABLE studies (
            study_instance_uid TEXT PRIMARY KEY,
            arrivals INTEGER NOT NULL DEFAULT 0,
            settled INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID;

        CREATE TABLE instances (
            sop_instance_uid TEXT PRIMARY KEY,
            study_instance_uid TEXT NOT NULL REFERENCES studies,
            path TEXT NOT NULL UNIQUE,
            received_at REAL NOT NULL,
            software TEXT NOT NULL,
            description TEXT NOT NULL
        ) WITHOUT ROWID;
        CREATE INDEX instances_of_study ON instances (study_instance_uid);

        CREATE TABLE objections (
            id INTEGER PRIMARY KEY,
            at REAL NOT NULL,
            path TEXT,
            peer TEXT NOT NULL,
            reason TEXT NOT NULL
        );

        CREATE TABLE jobs (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            group_key TEXT NOT NULL,
            revision INTEGER NOT NULL,
            study_instance_uid TEXT NOT NULL,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            images TEXT NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            due_at REAL NOT NULL,
            lease_until REAL,
            created_at REAL NOT NULL,
            changed_at REAL NOT NULL,
            UNIQUE (group_key, revision)
        );
        CREATE INDEX jobs_by_state ON jobs (state, due_at);

        CREATE TABLE journal (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at REAL NOT NULL,
            job INTEGER NOT NULL,
            source TEXT,
            target TEXT NOT NULL,
            reason TEXT NOT NULL
        );

        CREATE TABLE deliveries (
            job INTEGER NOT NULL REFERENCES jobs,
            destination TEXT NOT NULL,
            sop_instance_uid TEXT NOT NULL,
            path TEXT NOT NULL,
            outcome TEXT NOT NULL DEFAULT 'pending' CHECK (outcome IN ('pending', 'stored', 'refused')),
            attempts INTEGER NOT NULL DEFAULT 0,
            due_at REAL NOT NULL,
            status INTEGER,
            comment TEXT NOT NULL DEFAULT '',
            changed_at REAL NOT NULL,
            PRIMARY KEY (job, destination, sop_instance_uid)
        ) WITHOUT ROWID;
        CREATE INDEX deliveries_due ON deliveries (destination, outcome, due_at);

        CREATE TRIGGER jobs_are_born BEFORE INSERT ON jobs WHEN NEW.state <> 'waiting'
        BEGIN SELECT RAISE(ABORT, 'a job begins as waiting'); END;

        CREATE TRIGGER jobs_move BEFORE UPDATE OF state ON jobs
        WHEN NEW.state IS NOT OLD.state
            AND NOT EXISTS (SELECT 1 FROM transitions WHERE source = OLD.state AND target = NEW.state)
        BEGIN SELECT RAISE(ABORT, 'the transition table has no such move'); END;

        CREATE TRIGGER jobs_stay BEFORE DELETE ON jobs
        BEGIN SELECT RAISE(ABORT, 'jobs are never deleted'); END;

        CREATE TRIGGER journal_birth AFTER INSERT ON jobs
        BEGIN
            INSERT INTO journal (at, job, source, target, reason)
            VALUES (NEW.changed_at, NEW.id, NULL, NEW.state, NEW.reason);
        END;

        CREATE TRIGGER journal_move AFTER UPDATE OF state ON jobs WHEN NEW.state IS NOT OLD.state
        BEGIN
            INSERT INTO journal (at, job, source, target, reason)
            VALUES (NEW.changed_at, NEW.id, OLD.state, NEW.state, NEW.reason);
        END;

        CREATE TRIGGER journal_is_not_edited BEFORE UPDATE ON journal
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

        CREATE TRIGGER journal_is_not_shortened BEFORE DELETE ON journal
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
    """)


@migrations()
def objections_of_a_file(database: Database) -> None:
    """An object that is sent again and again is looked up among all that were not taken."""
    database.execute("CREATE INDEX objections_of_path ON objections (path)")


@migrations()
def storage_commitment(database: Database) -> None:
    """What destinations are asked to commit themselves to, and what peers ask of us (PS3.4 J)."""
    database.execute("ALTER TABLE deliveries ADD COLUMN sop_class_uid TEXT NOT NULL DEFAULT ''")
    database.execute("""ALTER TABLE deliveries ADD COLUMN commitment TEXT NOT NULL DEFAULT 'none'
        CHECK (commitment IN ('none', 'due', 'asked', 'given'))""")
    database.execute("ALTER TABLE deliveries ADD COLUMN transaction_uid TEXT")
    database.execute("""CREATE TABLE transactions (
        transaction_uid TEXT PRIMARY KEY,
        job INTEGER NOT NULL REFERENCES jobs,
        destination TEXT NOT NULL,
        asked_at REAL NOT NULL,
        given_up_at REAL NOT NULL,
        answered_at REAL
    ) WITHOUT ROWID""")
    database.execute("""CREATE TABLE pledges (
        ae_title TEXT NOT NULL,
        transaction_uid TEXT NOT NULL,
        instances TEXT NOT NULL,
        asked_at REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        answered_at REAL,
        comment TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (ae_title, transaction_uid)
    ) WITHOUT ROWID""")


@migrations()
def catalogue(database: Database) -> None:
    """What peers may query: sources and results, with their patients' names.  Made from files, whenever it is empty."""
    database.execute("""CREATE TABLE held_studies (
        study_instance_uid TEXT PRIMARY KEY,
        patient_id TEXT NOT NULL,
        attributes TEXT NOT NULL
    ) WITHOUT ROWID""")
    database.execute("""CREATE TABLE held_series (
        series_instance_uid TEXT PRIMARY KEY,
        study_instance_uid TEXT NOT NULL REFERENCES held_studies,
        attributes TEXT NOT NULL
    ) WITHOUT ROWID""")
    database.execute("""CREATE TABLE held_images (
        sop_instance_uid TEXT PRIMARY KEY,
        series_instance_uid TEXT NOT NULL REFERENCES held_series,
        sop_class_uid TEXT NOT NULL,
        transfer_syntax_uid TEXT NOT NULL,
        path TEXT NOT NULL,
        job INTEGER REFERENCES jobs,
        attributes TEXT NOT NULL
    ) WITHOUT ROWID""")
    database.execute("CREATE INDEX held_studies_of_patient ON held_studies (patient_id)")
    database.execute("CREATE INDEX held_series_of_study ON held_series (study_instance_uid)")
    database.execute("CREATE INDEX held_images_of_series ON held_images (series_instance_uid)")
    database.execute("CREATE INDEX held_images_of_job ON held_images (job)")
    database.execute("""CREATE TRIGGER held_no_more AFTER DELETE ON instances
        BEGIN DELETE FROM held_images WHERE sop_instance_uid = OLD.sop_instance_uid AND job IS NULL; END""")
    database.execute("""CREATE TRIGGER held_series_is_empty AFTER DELETE ON held_images
        BEGIN DELETE FROM held_series WHERE series_instance_uid = OLD.series_instance_uid AND NOT EXISTS
            (SELECT 1 FROM held_images WHERE series_instance_uid = OLD.series_instance_uid); END""")
    database.execute("""CREATE TRIGGER held_study_is_empty AFTER DELETE ON held_series
        BEGIN DELETE FROM held_studies WHERE study_instance_uid = OLD.study_instance_uid AND NOT EXISTS
            (SELECT 1 FROM held_series WHERE study_instance_uid = OLD.study_instance_uid); END""")


@migrations()
def fetches(database: Database) -> None:
    """What was found in archives, and what of it was fetched."""
    database.execute("""CREATE TABLE fetches (
        peer TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        series_instance_uid TEXT NOT NULL,
        images INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('found', 'fetched', 'refused')),
        reason TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_at REAL NOT NULL,
        changed_at REAL NOT NULL,
        PRIMARY KEY (peer, series_instance_uid)
    )""")
    database.execute("CREATE INDEX fetches_due ON fetches (state, due_at)")


@migrations()
def callers(database: Database) -> None:
    """Who called and when last, and how far the journal was read by those who tell of it."""
    database.execute("""CREATE TABLE callers (
        peer TEXT NOT NULL,
        ae_title TEXT NOT NULL,
        host TEXT NOT NULL,
        accepted INTEGER NOT NULL,
        times INTEGER NOT NULL,
        stored INTEGER NOT NULL,
        refused INTEGER NOT NULL,
        first_at REAL NOT NULL,
        last_at REAL NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (peer, ae_title, host, accepted)
    )""")
    database.execute("""CREATE TABLE bookmarks (
        reader TEXT PRIMARY KEY,
        journal INTEGER NOT NULL
    ) WITHOUT ROWID""")


@migrations()
def queue(database: Database) -> None:
    """Who goes first; a recipe of a job's own, "" for the node's; how often a destination broke off at an instance;
    which destinations cannot be had.
    """
    database.execute("ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 1")
    database.execute("ALTER TABLE jobs ADD COLUMN recipe TEXT NOT NULL DEFAULT ''")
    database.execute("ALTER TABLE deliveries ADD COLUMN broken_off INTEGER NOT NULL DEFAULT 0")
    database.execute("""CREATE TABLE pauses (
        destination TEXT PRIMARY KEY,
        attempts INTEGER NOT NULL,
        due_at REAL NOT NULL
    ) WITHOUT ROWID""")


@migrations()
def housekeeping(database: Database) -> None:
    """What each file held when it was taken in, to be verified against; and what was removed, when and why."""
    database.execute("ALTER TABLE instances ADD COLUMN digest TEXT NOT NULL DEFAULT ''")
    database.execute("UPDATE instances SET digest = COALESCE(json_extract(description, '$.digest'), '')")
    database.execute("CREATE INDEX instances_by_age ON instances (study_instance_uid, received_at)")
    database.execute("""CREATE TABLE removals (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        study_instance_uid TEXT NOT NULL,
        job INTEGER,
        files INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        reason TEXT NOT NULL
    )""")
    database.execute("""CREATE TABLE ledger_due (
        job INTEGER PRIMARY KEY,
        changes INTEGER NOT NULL DEFAULT 1
    )""")
    for table, column in (("jobs", "id"), ("deliveries", "job")):
        for event, row in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
            database.execute(f"""CREATE TRIGGER ledger_{table}_{event.lower()} AFTER {event} ON {table}
                BEGIN INSERT INTO ledger_due (job) VALUES ({row}.{column})
                    ON CONFLICT (job) DO UPDATE SET changes = changes + 1; END""")
    database.execute("INSERT INTO ledger_due (job) SELECT id FROM jobs")


@migrations()
def watching(database: Database) -> None:
    """What those who watch ask for again and again, however many jobs and deliveries there have been."""
    database.execute("CREATE INDEX journal_of_job ON journal (job)")
    database.execute("CREATE INDEX deliveries_answered ON deliveries (destination, outcome, changed_at)")
    database.execute("""CREATE INDEX deliveries_awaited ON deliveries (destination)
        WHERE commitment IN ('due', 'asked')""")


@migrations()
def procedure_steps(database: Database) -> None:
    """What scanners say that they have made (PS3.4 F.7).  images: SOP Instance UIDs, as far as told."""
    database.execute("""CREATE TABLE procedure_steps (
        sop_instance_uid TEXT PRIMARY KEY,
        ae_title TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('IN PROGRESS', 'COMPLETED', 'DISCONTINUED')),
        studies TEXT NOT NULL,
        changed_at REAL NOT NULL
    ) WITHOUT ROWID""")
    database.execute("""CREATE TABLE performed_series (
        series_instance_uid TEXT NOT NULL,
        step TEXT NOT NULL REFERENCES procedure_steps ON DELETE CASCADE,
        images TEXT NOT NULL,
        PRIMARY KEY (series_instance_uid, step)
    ) WITHOUT ROWID""")
    database.execute("CREATE INDEX series_of_step ON performed_series (step)")


@migrations()
def jobs_of_study(database: Database) -> None:
    """House-keeping looks at every study, and at the jobs of those that have changed."""
    database.execute("CREATE INDEX jobs_of_study ON jobs (study_instance_uid, changed_at)")


@migrations()
def manner(database: Database) -> None:
    """How a job's results are made, kept when it is first begun; "" before."""
    database.execute("ALTER TABLE jobs ADD COLUMN made_with TEXT NOT NULL DEFAULT ''")


class UnknownSchema(NodeError):
    """A database that another version of this software made."""


@migrations()
def denied(database: Database) -> None:
    """What callers asked for without the right to, and when last."""
    database.execute("ALTER TABLE callers ADD COLUMN denied INTEGER NOT NULL DEFAULT 0")
    database.execute("ALTER TABLE callers ADD COLUMN denied_at REAL")


def apply(database: Database) -> None:
    """Brings a database to the present schema and the transition table to that of this software.

    In one transaction that takes the write lock first, so that two processes cannot both find a step undone.  What was
    there before an older one is changed is kept beside it as NAME.before-STEP.  Raises UnknownSchema for a database
    that a newer software made.
    """
    _refuse_newer(database)
    if migrations.applied(database) and (pending := migrations.pending(database)):
        _copy(database, pending[0].name)
    rows = [(source.value, target.value, meaning) for (source, target), meaning in TRANSITIONS.items()]
    database.execute("BEGIN IMMEDIATE")
    with database.conn:
        migrations.apply(database)
        if set(database.execute("SELECT source, target, meaning FROM transitions")) != set(rows):
            database.execute("DELETE FROM transitions")
            database.conn.executemany("INSERT INTO transitions (source, target, meaning) VALUES (?, ?, ?)", rows)


def _copy(database: Database, step: str) -> None:
    """Only the last one is kept.  One of an update that was interrupted is whole, and stays."""
    name = database.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
    if not name:
        return  # in memory
    file = Path(name)
    copy = file.with_name(f"{file.name}.before-{step}")
    if not copy.exists():
        copy_online(database.conn, copy)
    for earlier in file.parent.glob(f"{file.name}.before-*"):
        if earlier != copy:
            earlier.unlink()


def copy_online(connection: sqlite3.Connection, copy: Path) -> None:
    """A whole copy of a database that others may be writing to; appears complete or not at all."""
    part = copy.with_name(f"{copy.name}.part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part)) as target:
        connection.backup(target)
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(copy)


def require_present(database: Database) -> None:
    """For those who only look: changes nothing.  Raises UnknownSchema for a database that is older or newer."""
    _refuse_newer(database)
    if missing := [step.name for step in migrations.pending(database)]:
        raise UnknownSchema(
            f"the database lacks {', '.join(missing)}: an older qsm-node made it, or the node is just starting; start "
            "this version of the node (qsm-node serve) to bring it up to date"
        )


def _refuse_newer(database: Database) -> None:
    with closing(Database(memory=True)) as empty:
        known = {step.name for step in migrations.pending(empty)}
    if unknown := [step.name for step in migrations.applied(database) if step.name not in known]:
        raise UnknownSchema(
            f"the database has {', '.join(unknown)}, which this qsm-node does not know: a newer one made it; use that"
        )
