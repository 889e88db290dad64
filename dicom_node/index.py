"""The index: files of the spool as rows of the store, off the path of the receiver.

The spool is the truth.  What a crash leaves unindexed is found again by `compare` at the next start, so the queue here
needs no durability of its own; it is read while images come, however much it is.  An object that cannot be read as
DICOM is set aside in the spool; one that could not be described for any other reason stays where it is and is tried
again at the next start.  Neither stops anybody, and nothing that was acknowledged is deleted.
"""

from __future__ import annotations

import math
import queue
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import structlog

from dicom_node.errors import UnreadableObject
from dicom_node.model import Instance
from dicom_node.rebuild import is_damage, is_passing
from dicom_node.receive import Refused, Stored
from dicom_node.spool import Spool
from dicom_node.store import Objection, Store
from dicom_node.surprise import words

Describe = Callable[[Path, float, str], Instance]
Entry = Instance | Objection
Put = Callable[[Stored, Entry], None]
Write = Callable[[list[Stored], list[Entry], Put], bool]
"""False if the database has not taken them."""

BATCH = 200
"""Images in one transaction: under load one fsync serves many, at leisure each has its own."""
READING = 2.0
"""Seconds after which what has been read so far is written: of enhanced objects each may take as long."""
LOST = "its file is gone, and the node did not remove it: restore it from a backup, or send it again"
CHANGED = "its file is not what was taken in: see qsm-node verify"
LULL, PATIENCE = 0.1, 30.0
"""Seconds without an image after which those that have come are described, and how long the first of them waits for
that at most: describing takes the interpreter away from whoever receives."""
FAREWELL = 10.0
"""Seconds that what is queued has at the end; the rest is left to the next start."""
TOLD_EVERY = 60.0
"""Seconds between two lines of the log about how much is still to be read."""
RETRY_PAUSE = 1.0
"""Seconds until a batch that the database could not take (no room, locked) is tried again."""
SILENT_AFTER = 180.0
"""Seconds without a row after which a backlog is told to stand still."""
_OF_A_ROW = (sqlite3.IntegrityError, sqlite3.DataError)
"""What one row provokes and another would not."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reading:
    """How far a start has come with the spool.  left: files that are still to be read.

    trouble: why there are no fewer of them, "" where there are.
    """

    left: int
    trouble: str = ""


class Index:
    """Describes what the receiver stored, in a thread of its own between `start` and `stop`."""

    def __init__(self, store: Store, spool: Spool, describe: Describe) -> None:
        self._store = store
        self._spool = spool
        self._describe = describe
        self._queue: queue.SimpleQueue[Stored] = queue.SimpleQueue()
        self._came = threading.Event()
        """Set once for many: waking the thread for each image takes the interpreter away from whoever receives."""
        self._pending: Counter[str] = Counter()
        self._pending_lock = threading.Lock()
        self._backlog: deque[tuple[str, float | None]] = deque()
        """Files to be read since the start, each with the time when it was received where it has a row already."""
        self._rowless = 0
        self._stopping = threading.Event()
        self._until = math.inf
        self._batch_since: float | None = None
        self._wrote_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="index", daemon=True)
        self.damage: sqlite3.Error | None = None
        """What ended it: the database was found damaged, and what is queued is left to the next start."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Indexes what is queued, for some seconds, then ends.

        What is left, or what the database will not take, is found at the next start.
        """
        self._until = time.monotonic() + FAREWELL
        self._stopping.set()
        self._came.set()
        self._thread.join()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def stuck_for(self) -> float:
        """Seconds that one image has been read, or those at hand have been tried to be written; not while the database
        is locked or the disk is full.
        """
        since = self._batch_since
        return 0.0 if since is None else time.monotonic() - since

    def take(self, stored: Stored) -> None:
        """The receiver's `on_stored`."""
        with self._pending_lock:
            self._pending[stored.association] += 1
        self._queue.put(stored)
        if not self._came.is_set():
            self._came.set()

    def object_to(self, refused: Refused) -> None:
        """The receiver's `on_refused`."""
        path = str(refused.path) if refused.path else None
        reason = f"{refused.reason} (answered 0x{refused.status:04X})"
        self._store.object_to(Objection(refused.received_at, path, refused.calling_ae_title, reason))

    @property
    def backlog(self) -> int:
        """Files that were there at the start and are still to be read: as long as there are, rows tell half of it."""
        return len(self._backlog)

    @property
    def reading(self) -> Reading:
        """As `backlog`, with what monitors are told."""
        left, silent = self.backlog, time.monotonic() - self._wrote_at
        stands = left and silent > SILENT_AFTER
        return Reading(left, f"nothing could be written down for {silent:.0f} s; the log says why" if stands else "")

    @property
    def knows_all(self) -> bool:
        """Whether all files that were there at the start have had their row, be it of another version of this software.

        One that no row could be made of is known by the objection to it.
        """
        return not self._rowless

    @property
    def pending(self) -> frozenset[str]:
        """Associations that brought images which are in the spool but not yet in the store."""
        with self._pending_lock:
            return frozenset(self._pending)

    def compare(self) -> None:
        """Holds the store against the spool: for the start, before the receiver runs.

        Rows without a file go, and are told: what retention removes loses its row first.  What was set aside is
        objected to again, should a crash have come between.  Files that are not indexed, or were by another version of
        this software, become the backlog, which `start` reads, or `reconcile`; the latest first, which somebody may
        wait for.  A file found here came over an association that is long closed.
        """
        indexed = self._store.indexed()
        files = {str(path) for path in self._spool.images()}
        gone = [path for path in indexed if path not in files]
        stale = [(path, at) for path, (_, at, current) in indexed.items() if path in files and not current]
        fresh = [path for path in files if path not in indexed]
        self._miss(gone)
        for aside, reason, at in self._spool.set_aside_before():
            self._store.object_to(Objection(at, str(aside), "", reason))
        stale.sort(key=lambda found: found[1], reverse=True)
        self._backlog.extend([*stale, *((path, None) for path in sorted(fresh, key=_came, reverse=True))])
        self._rowless += len(fresh)
        with self._pending_lock:
            self._pending += Counter({"": len(self._backlog)})
        if gone or stale or fresh:
            log.info("compared", files=len(files), to_add=len(fresh), to_describe_anew=len(stale), gone=len(gone))

    def reconcile(self) -> None:
        """Makes the store agree with the spool, without a thread.  Raises OperationalError where it takes no rows."""
        self.compare()
        while self._backlog:
            if not self._catch_up(self._write_or_leave):
                raise sqlite3.OperationalError(f"the database {self._store.path} takes no rows: see the log")

    def restore(self, path: Path) -> None:
        """An image that came again just while it was being removed is taken in like one that is new."""
        self.take(Stored(path, "", path.stat().st_mtime))

    def _miss(self, paths: list[str]) -> None:
        """Acknowledged files that somebody or something else has removed."""
        if not paths:
            return
        log.error(
            "images_lost", images=len(paths), such_as=paths[0], do="restore them from a backup, or send them again"
        )
        now = time.time()
        with self._store.transaction():
            self._store.remove_instances(paths)
            for path in paths:
                self._store.object_to(Objection(now, path, "", LOST))

    def _catch_up(self, write: Write) -> bool:
        """Reads a batch of the backlog; False if it is not written."""
        has_row = self._backlog[0][1] is not None
        batch = list(takewhile(lambda found: (found[1] is not None) is has_row, islice(self._backlog, BATCH)))
        stored = [Stored(Path(path), "", _came(path) if at is None else at) for path, at in batch]
        entries = self._read_some(stored)
        if not write(stored[: len(entries)], entries, self._replace if has_row else self._add):
            return False
        for _ in entries:
            self._backlog.popleft()
        self._rowless -= 0 if has_row else len(entries)
        with self._pending_lock:
            self._pending -= Counter({"": len(entries)})
        if not self._backlog:
            log.info("reconciled")
        return True

    def _replace(self, stored: Stored, entry: Entry) -> None:
        path = str(stored.path)
        if isinstance(entry, Objection):
            self._store.remove_instances([path])
            self._store.object_to(entry)
        elif not self._store.describe_anew(entry):
            log.error("image_changed", path=path)
            self._store.object_to(Objection(entry.received_at, path, "", CHANGED))

    def _run(self) -> None:
        try:
            self._serve()
        except sqlite3.DatabaseError as error:  # trying again would not mend it: the node ends, and makes it anew
            self.damage = error

    def _serve(self) -> None:
        told_at = time.monotonic()
        while not self._stopping.is_set() or (not self._queue.empty() and time.monotonic() < self._until):
            if self._backlog and not self._stopping.is_set():  # between two batches of it, what comes has its turn
                self._catch_up(self._insist)
                if time.monotonic() > told_at + TOLD_EVERY:
                    told_at = time.monotonic()
                    log.info("reading_anew", left=len(self._backlog))
                waiting = self._taken()
            else:
                waiting = self._await()
            while waiting and (count := self._index(waiting[:BATCH])):
                waiting = waiting[count:]

    def _index(self, waiting: list[Stored]) -> int:
        """How many of the first were seen to; 0 when the time at the end is over."""
        entries = self._read_some(waiting)
        batch = waiting[: len(entries)]
        self._insist(batch, entries, self._add)
        with self._pending_lock:
            self._pending -= Counter(stored.association for stored in batch)  # in place it drops what is zero
        return len(batch)

    def _insist(self, batch: list[Stored], entries: list[Entry], put: Put) -> bool:
        """Tries until the database takes them; False when the node ends meanwhile."""
        self._batch_since = time.monotonic()
        while not (taken := self._write_or_leave(batch, entries, put)):
            if self._stopping.wait(RETRY_PAUSE):
                break
        self._batch_since = None
        self._wrote_at = time.monotonic()
        return taken

    def _await(self) -> list[Stored]:
        """What has come when nothing more comes, or when the first has waited long; at the end perhaps nothing."""
        self._came.wait()
        self._came.clear()  # what comes from here on is seen below, or tells of itself anew
        seen, deadline = 0, time.monotonic() + PATIENCE
        while (count := self._queue.qsize()) > seen and time.monotonic() < deadline:
            seen = count
            self._stopping.wait(LULL)
        return self._taken()

    def _taken(self) -> list[Stored]:
        return [self._queue.get() for _ in range(self._queue.qsize())]

    def _write_or_leave(self, batch: list[Stored], entries: list[Entry], put: Put) -> bool:
        """In one transaction; an entry that no row can be made of keeps no other out and does not end the thread.

        False if the database does not take them now.  Raises DatabaseError for a damaged one.
        """

        def put_all() -> None:
            for stored, entry in zip(batch, entries, strict=True):
                put(stored, entry)

        try:
            return self._in_one(put_all, len(entries))
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, _OF_A_ROW):
                raise
            if len(batch) > 1:
                return all(self._write_or_leave([one], [entry], put) for one, entry in zip(batch, entries, strict=True))
            log.exception("row_not_made", path=str(batch[0].path))
            if isinstance(entries[0], Objection):  # the log has to do
                return True
            objection = self._leave(batch[0], f"cannot be written down: {words(error)}")
            return self._write_or_leave(batch, [objection], put)

    def _add(self, stored: Stored, entry: Entry) -> None:
        if isinstance(entry, Instance):
            self._store.add_instance(entry)
        else:
            self._store.object_to(entry)

    def _in_one(self, call: Callable[[], None], images: int) -> bool:
        """One transaction; False if the database does not take it now.  Raises DatabaseError for a damaged one, or for
        a row.
        """
        try:
            with self._store.transaction():
                call()
        except sqlite3.Error as error:
            if isinstance(error, _OF_A_ROW):
                raise
            log.error("not_indexed_yet", images=images, error=str(error))
            if is_damage(error):
                raise
            if is_passing(error) and self._batch_since is not None:
                self._batch_since = time.monotonic()  # another start would not find it otherwise
            return False
        return True

    def _read_some(self, batch: list[Stored]) -> list[Entry]:
        """The first of a batch, for as long as READING, one at least; none when the time at the end is over."""
        entries: list[Entry] = []
        enough = time.monotonic() + READING
        for stored in batch:
            self._batch_since = now = time.monotonic()  # each is a sign of life
            if now >= self._until or (entries and now >= enough):
                break
            entries.append(self._read(stored))
        self._batch_since = None
        return entries

    def _read(self, stored: Stored) -> Entry:
        """The row for a file.  Never raises: one hostile header, or one fault of ours, must not stop the others."""
        try:
            return self._describe(stored.path, stored.received_at, stored.association)
        except UnreadableObject as error:
            if _is_passing(error.__cause__):
                return self._leave(stored, str(error))
            return self._set_aside(stored, str(error))
        except OSError as error:
            return self._leave(stored, f"the file cannot be read: {error.strerror}")
        except Exception as error:
            log.exception("description_failed", path=str(stored.path))
            return self._leave(stored, f"cannot be described: {words(error)}")

    def _leave(self, stored: Stored, reason: str) -> Objection:
        """An acknowledged file that is perhaps good: it stays, and is described again at the next start."""
        log.error("not_described", path=str(stored.path), reason=reason)
        return Objection(stored.received_at, str(stored.path), "", reason)

    def _set_aside(self, stored: Stored, reason: str) -> Objection:
        """An acknowledged file that is no image; it stays where it is if it cannot be moved."""
        where = stored.path
        try:
            where = self._spool.set_aside(stored.path, reason, stored.received_at)
        except OSError as error:
            reason = f"{reason}; it cannot be moved to {self._spool.unreadable.name}/: {error.strerror}"
        log.warning("set_aside", path=str(where), reason=reason)
        return Objection(stored.received_at, str(where), "", reason)


def _came(path: str) -> float:
    """When a file was received, in s since the epoch; now, if it has just gone, which whoever reads it will see."""
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return time.time()


def _is_passing(cause: BaseException | None) -> bool:
    """Whether the machine failed and not the file.  pydicom's own OSErrors have no errno."""
    return isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None)
