"""What the node stands on: the disk of its state folder, the memory, the ports."""

from __future__ import annotations

import os
import pwd
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from dicom_node.check.finding import Finding
from dicom_node.errors import NodeError
from dicom_node.memory import GB, estimate, room
from dicom_node.rebuild import damage, remedy
from dicom_node.room import free_bytes, more_room
from dicom_node.settings import Reconstruct, Retention
from dicom_node.spool import write_durably
from dicom_node.store import Store

MOUNTS = Path("/proc/self/mountinfo")
OF_OTHERS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "gpfs", "sshfs"}
)
"""File systems of other machines: neither SQLite's locks nor a rename are sure there."""
FORGETFUL = frozenset({"tmpfs", "ramfs"})
SLOW_DISK = 0.1
"""Seconds for one object to be durable from which people are warned: a scanner waits for as long after each image."""
TYPICAL = (256 * 256 * 160, 5)
"""Voxels and echoes of a head at 1 mm."""


def state_folder(folder: Path, retention: Retention) -> Iterator[Finding]:
    """Rights, file system, room, whether what is written is durable, and the database in it."""
    # Not is_dir of a Path, which raises where it may not look.
    there = next(parent for parent in (folder, *folder.parents) if os.path.isdir(parent))  # noqa: PTH112 - see above
    you = name_of(os.geteuid())
    owner = name_of(there.stat().st_uid)
    if not os.access(there, os.W_OK | os.X_OK):
        found = f"{folder} belongs to {owner}, and {you} may not write there"
        remedy = f"call it as the node's user; where that is {you}, give {folder} to it, mode 0700"
        if there != folder:
            found = f"{you} finds no {folder}, and may make nothing in {there}"
            remedy = f"make {folder}, and give it alone to the node's user; leave {there} as it is"
        yield Finding("FAILURE", "state folder", found, remedy)
        return
    if there == folder and owner != you:
        found = f"{folder} belongs to {owner}, and you are {you}"
        yield Finding("warning", "user", found, f"sudo -u {owner} qsm-node check")
    kind = file_system(there)
    if kind.removeprefix("fuse.") in OF_OTHERS:
        remedy = "put [node] state_folder on a disk of this machine"
        yield Finding("FAILURE", "file system", f"{there} lies on {kind}, which is of another machine", remedy)
    elif kind in FORGETFUL:
        remedy = "put [node] state_folder on a disk"
        yield Finding(
            "warning", "file system", f"{there} lies on {kind}, which a restart of the machine empties", remedy
        )
    else:
        yield Finding("good", "file system", f"{kind or 'of an unknown kind'}, local as far as can be told")
    yield _space(there, retention)
    yield _durability(there)
    if (folder / "node.db").is_file():
        yield _database(folder / "node.db")


def _database(path: Path) -> Finding:
    try:
        if trouble := damage(path):
            return Finding("warning", "database", f"{trouble}: the node sets it aside at its start, and makes it anew")
        Store(path, owner=False).close()
    except NodeError as error:
        return Finding("warning", "database", str(error))
    except sqlite3.Error as error:
        return Finding("FAILURE", "database", remedy(error, path))
    return Finding("good", "database", "sound, and of this version")


def file_system(folder: Path) -> str:
    """Its kind, "" where it cannot be told (proc_pid_mountinfo(5))."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return ""
    kinds = {}
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda blank: chr(int(blank[1], 8)), mount.split()[4])
        kinds[Path(point)] = source.split()[0]  # of several at one point the last covers the others
    resolved = folder.resolve()
    return next((kinds[parent] for parent in (resolved, *resolved.parents) if parent in kinds), "")


def _space(folder: Path, retention: Retention) -> Finding:
    free = free_bytes(folder)
    words = f"{free / 2**30:.1f} GiB free"
    if free < retention.minimum_free_bytes:
        needed = f"{retention.minimum_free_bytes / 2**30:.1f} GiB"
        return Finding("FAILURE", "room", f"{words}: senders are turned away below {needed}", more_room(retention))
    if free < retention.free_bytes:
        soon = f"{retention.free_bytes / 2**30:.1f} GiB"
        trouble = f"{words}: below {soon} what is delivered or left alone goes before its time"
        return Finding("warning", "room", trouble, more_room(retention))
    return Finding("good", "room", words)


def _durability(folder: Path) -> Finding:
    """Writes as the spool does, and takes it away again."""
    file = folder / f".check-{os.getpid()}"
    begun = time.monotonic()
    try:
        write_durably(file, bytes(2**17))
        seconds = time.monotonic() - begun
    except OSError as error:
        return Finding("FAILURE", "durability", f"cannot be written durably: {error.strerror}", "look after the disk")
    finally:
        file.unlink(missing_ok=True)
    words = f"an image is durable after {seconds * 1e3:.0f} ms"
    if seconds > SLOW_DISK:
        return Finding("warning", "durability", f"{words}, and as long a scanner waits", "take a faster disk")
    return Finding("good", "durability", words)


def memory(settings: Reconstruct) -> Finding:
    """Whether a typical job could ever run here, and now."""
    needed, found = estimate(*TYPICAL), room(settings.memory, lambda: 0.0)
    words = f"a head at 1 mm with 5 echoes needs {needed / GB:.1f} GB"
    if needed > found.capacity:
        return Finding("warning", "memory", f"{words}, more than the {found.capacity / GB:.1f} GB that {found.words}")
    if needed > found.free:
        remedy = "end what else needs it; jobs wait until then"
        return Finding("warning", "memory", f"{words}, and {found.free / GB:.1f} GB are free now", remedy)
    return Finding("good", "memory", f"{words}; there is room for {found.capacity // needed:.0f} at once")


def port(what: str, host: str, number: int, running: bool) -> Finding:
    """running: whether a node of this state folder has it already."""
    what = f"port {number}, {what}"
    if running:
        return Finding("good", what, "a node runs in this state folder and has it, or will at its next start")
    try:
        with socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return Finding("good", what, f"can be listened on at {host}")
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        remedy = "end who has it, unless that is systemd for the node (qsm-node.socket), or take another"
        if isinstance(error, PermissionError):
            remedy = "let systemd open it (qsm-node.socket), or take another"
        return Finding("FAILURE", what, f"cannot be listened on at {host}: {why}", remedy)


def name_of(user: int) -> str:
    """Its login name; its number where it has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
