"""A backup of a state folder while its node runs: a folder that a node could serve.

The database is copied first, then the files: what comes in between is in no row of the copy, and its first start takes
it in.  Images never change once they are there, so a backup into the same folder copies what is new and removes what
the node holds no more.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import NodeError
from dicom_node.migrations import copy_online
from dicom_node.pseudonym import KEY_FILE
from dicom_node.rebuild import DATABASE, LEDGER

MARK = "qsm-node-backup"
"""A file by which a folder is known as a backup of ours, in which we may delete."""
MIRRORED = ("images", "conflicts", "unreadable", "quarantine", LEDGER)


class NoBackup(NodeError):
    """A folder that cannot take one."""


@dataclass(frozen=True)
class BackedUp:
    copied: int
    bytes: int
    kept: int
    removed: int


def back_up(state_folder: Path, target: Path, config: Path | None) -> BackedUp:
    """Brings `target` up to date with a state folder.  config: the node's, copied too.

    Killed at any point, it can be done again.  Raises NoBackup, OSError, sqlite3.Error.
    """
    _prepare(state_folder, target)
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
            there.discard(relative)  # the node has removed it meanwhile
            continue
        copied, size = copied + 1, size + before.st_size
    if config is not None:
        _copy(config, target / "node.toml")
    return BackedUp(copied, size, kept, _remove_others(target, there))


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
    for path in sorted(folder.rglob("*")):
        if path.suffix != ".part" and path.is_file():
            yield path, path.relative_to(state_folder)


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
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(target)


def _remove_others(target: Path, there: set[Path]) -> int:
    """What the node holds no more."""
    removed = 0
    for folder in (*MIRRORED, "jobs"):
        for path in sorted((target / folder).rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(target) not in there:
                path.unlink()
                removed += 1
    return removed
