"""A backup of a state folder while its node runs: a folder that a node could serve.

The database is copied first, then the files: what comes in between is in no row of the copy, and its first start takes
it in.  Images never change once they are there, so a backup into the same folder copies what is new.

What the node holds no more is put aside below `gone/`, by the day of the backup, and goes for good some weeks later:
who lost files on the node finds them there.  The copy of an image that the database names and that has no file any more
stays where it is: that one was lost, and not removed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from dicom_node.errors import NodeError
from dicom_node.migrations import copy_online
from dicom_node.pseudonym import KEY_FILE
from dicom_node.rebuild import DATABASE, LEDGER
from dicom_node.spool import sync

MARK = "qsm-node-backup"
"""A file by which a folder is known as a backup of ours, in which we may delete."""
GONE = "gone"
KEPT_GONE = timedelta(days=30)
"""For so long stays what the node holds no more."""
MIRRORED = ("images", "conflicts", "unreadable", "quarantine", LEDGER)


class NoBackup(NodeError):
    """A folder that cannot take one."""


@dataclass(frozen=True)
class BackedUp:
    """removed: put aside, because the node holds it no more.  lost: images that it should hold and does not."""

    copied: int
    bytes: int
    kept: int
    removed: int
    lost: int = 0


def back_up(state_folder: Path, target: Path, config: Path | None) -> BackedUp:
    """Brings `target` up to date with a state folder.  config: the node's, copied too.

    Killed at any point, it can be done again.  Raises NoBackup, OSError, sqlite3.Error.
    """
    _prepare(state_folder, target)
    with _alone_in(target):
        return _bring_up_to_date(state_folder, target, config)


def _bring_up_to_date(state_folder: Path, target: Path, config: Path | None) -> BackedUp:
    with closing(sqlite3.connect(state_folder / DATABASE)) as connection:
        copy_online(connection, target / DATABASE)
    copied = size = kept = 0
    there = set()
    for source, relative in _files(state_folder):
        there.add(relative)
        try:
            before = source.stat()
            if _is_copied(target / relative, before):
                kept += 1
                continue
            _copy(source, target / relative)
        except FileNotFoundError:
            if source.exists():
                raise
            there.discard(relative)  # the node has removed it meanwhile
            continue
        copied, size = copied + 1, size + before.st_size
    if config is not None:
        _copy(config, target / "node.toml")
    missing = _images(target / DATABASE) - there
    lost = missing & _images(state_folder / DATABASE)  # the node removes the row first
    today = datetime.now(UTC).date()
    _purge(target / GONE, today - KEPT_GONE)
    removed = _put_aside_others(target, there | missing, target / GONE / today.isoformat())
    return BackedUp(copied, size, kept, removed, len(lost))


def _prepare(state_folder: Path, target: Path) -> None:
    if not (state_folder / DATABASE).is_file():
        raise NoBackup(f"there is no {DATABASE} in {state_folder}: nothing to back up")
    inside = target.resolve().is_relative_to(state_folder.resolve())
    if inside or state_folder.resolve().is_relative_to(target.resolve()):
        raise NoBackup(f"{target} and {state_folder} lie in one another: name a folder elsewhere, on another disk")
    if target.exists() and any(target.iterdir()) and not (target / MARK).is_file():
        raise NoBackup(f"{target} holds something else than a backup: name a new or empty folder, or an earlier backup")
    target.mkdir(parents=True, exist_ok=True, mode=0o750)
    (target / MARK).touch()


@contextmanager
def _alone_in(target: Path) -> Iterator[None]:
    """Two at once would take each other's copies for what the node holds no more."""
    with (target / MARK).open("a") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise NoBackup(f"another backup into {target} is under way: let it end, or name another folder") from error
        yield


def _images(database: Path) -> set[Path]:
    """Those that it names, below the state folder wherever that lay."""
    with closing(sqlite3.connect(database)) as connection:
        return {Path(*Path(path).parts[-3:]) for (path,) in connection.execute("SELECT path FROM instances")}


def _files(state_folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each file that belongs to a backup, and where it goes."""
    for folder in MIRRORED:
        yield from _below(state_folder, state_folder / folder)
    jobs = state_folder / "jobs"
    for job in sorted(jobs.glob("*")):
        if job.name.isdecimal():
            yield from ((path, path.relative_to(state_folder)) for path in [job / "job.json"] if path.is_file())
            yield from _below(state_folder, job / "result")
    if (state_folder / KEY_FILE).is_file():
        yield state_folder / KEY_FILE, Path(KEY_FILE)


def _below(state_folder: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """A folder that the node removes meanwhile has nothing in it; one that cannot be read raises OSError."""
    for parent, folders, names in os.walk(folder, onerror=_raise_unless_gone):
        folders.sort()
        for path in (Path(parent, name) for name in sorted(names)):
            if path.suffix != ".part" and path.is_file():
                yield path, path.relative_to(state_folder)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _is_copied(copy: Path, source: os.stat_result) -> bool:
    """By size and time: the content of what lies under one name changes with neither only if a disk fails."""
    try:
        found = copy.stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (source.st_size, source.st_mtime_ns)


def _copy(source: Path, target: Path) -> None:
    """With its time, which tells when an image was received; appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    shutil.copy2(source, part)
    sync(part)
    part.replace(target)


def _put_aside_others(target: Path, there: set[Path], gone: Path) -> int:
    """What the node holds no more."""
    removed = 0
    for folder in (*MIRRORED, "jobs"):
        for path in sorted((target / folder).rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.suffix == ".part":
                path.unlink()  # of a backup that was killed
            elif (relative := path.relative_to(target)) not in there:
                (gone / relative).parent.mkdir(parents=True, exist_ok=True)
                path.replace(gone / relative)
                removed += 1
    return removed


def _purge(gone: Path, before: date) -> None:
    for folder in gone.glob("????-??-??"):
        if folder.name < before.isoformat():
            shutil.rmtree(folder)
