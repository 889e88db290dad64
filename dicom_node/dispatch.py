"""From ready to sending: gives ready jobs to the executor and registers what comes back.

A worker gets a folder and a recipe.  One that dies or runs out of time hands its job back, after growing pauses and up
to the ceiling of attempts; what ends with the node is begun again without either; a job of which no map can be made
fails at once, with the reason.  One for which the memory does not suffice now waits, and says so, and fails where it
has not sufficed for a day; one that has been cancelled loses its worker.  What a job is made with is kept when it is
first begun.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.apart import Apart, in_place
from dicom_node.cleanup import make_anew
from dicom_node.errors import Contradicted, InvalidConfiguration, NotConvertible, UnreadableObject
from dicom_node.execute import WorkerDied, WorkerStopped
from dicom_node.manner import Manner, read_manner, told_by
from dicom_node.memory import GB, LONGEST_SHORTAGE, UNBOUNDED, Need, Room, Shortages, need
from dicom_node.outbox import Outbox, Result
from dicom_node.recipes import Recipe
from dicom_node.reprocess import recipe_of
from dicom_node.room import is_full
from dicom_node.settings import Output, Reconstruct, Scanner
from dicom_node.spool import write_durably
from dicom_node.states import State
from dicom_node.store import Job, Store
from dicom_node.surprise import words

Work = Callable[[Path, Recipe], Path]

LEASE_MARGIN = 60.0
"""Seconds that a lease outlives the time limit of its worker."""

NODE_ENDED = "the node ended while a worker had it"
MOST_ENDS = 20
"""Of the node during one job, however many attempts its own failures have left."""
PAUSE_FACTOR, LONGEST_PAUSE = 4.0, 3600.0
"""Of the pauses before a job is begun again; seconds."""
LOOK_AHEAD = 50
"""Jobs behind the first that are looked at for one which fits where the first does not."""

log = structlog.get_logger(__name__)


class Dispatch:
    """Runs `work(job_folder, recipe)` for each ready job, at most `settings.workers_at_once`.

    room: the memory that there is for jobs.  apart: calls what reads a recipe that is not the node's present one.
    """

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        executor: Executor,
        work: Work,
        recipe: Recipe,
        settings: Reconstruct,
        jobs_folder: Path,
        destinations: list[str],
        clock: Callable[[], float],
        scanners: Sequence[Scanner] = (),
        output: Output | None = None,
        room: Callable[[], Room] = lambda: UNBOUNDED,
        disk_has_room: Callable[[], bool] = lambda: True,
        apart: Apart = in_place,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._executor = executor
        self._work = work
        self._jobs_folder = jobs_folder
        self._clock = clock
        self.renew(recipe, settings, destinations, scanners, output or Output())
        self._room = room
        self._disk_has_room = disk_has_room
        self._apart = apart
        self._unwritten: list[tuple[Job, Future[Path]]] = []
        self._running: dict[int, Future[Path] | None] = {}
        self._needs: dict[int, tuple[tuple[str, ...], Need]] = {}
        self._shortages = Shortages()
        self._lock = threading.Lock()

    def renew(
        self,
        recipe: Recipe,
        settings: Reconstruct,
        destinations: list[str],
        scanners: Sequence[Scanner],
        output: Output,
    ) -> None:
        """The configuration was read anew: jobs that begin from now on follow it."""
        self._recipe = recipe
        self._settings = settings
        self._destinations = destinations
        self._scanners = [scanner.model_dump() for scanner in scanners]
        self._output = output.model_dump(mode="json")

    @property
    def running(self) -> frozenset[int]:
        """The jobs that a worker of this process has."""
        with self._lock:
            return frozenset(self._running)

    def recover(self) -> None:
        """At the start: what a process that is gone was reconstructing is nobody's any more."""
        for job in self._store.jobs(State.RECONSTRUCTING):
            self._recover(job)

    def _recover(self, job: Job) -> None:
        """A power cut is no fault of the job; a job that takes the node down with it each time must come to an end."""
        [found] = self._store.rows(
            """SELECT COUNT(*) AS ends FROM journal WHERE job = :job AND source = 'reconstructing' AND reason = :reason
            AND id > (SELECT COALESCE(MAX(id), 0) FROM journal WHERE job = :job AND target = 'failed')""",
            {"job": job.id, "reason": NODE_ENDED},
        )
        now, ends = self._clock(), found["ends"] + 1
        if ends >= MOST_ENDS:
            reason = f"{NODE_ENDED}, for the {ends}th time"
            self._store.advance(job.id, State.RECONSTRUCTING, State.FAILED, now, reason)
            return
        with self._store.transaction():
            if self._store.advance(job.id, State.RECONSTRUCTING, State.READY, now, NODE_ENDED):
                self._store.forget_attempts(job.id, 1)

    def __call__(self) -> None:
        """One round: stop what was cancelled, register results, take back expired leases, give out what is ready."""
        now = self._clock()
        self._write_down_late()
        self._stop_cancelled()
        if self._destinations:
            for job in self._store.jobs(State.RECONSTRUCTED):
                self._register(job)
        for job in self._store.jobs(State.RECONSTRUCTING):
            if job.id not in self.running and (job.lease_until or 0) < now:
                self._hand_back(job, "its lease ended without an answer")
        for job in self._store.exhausted(self._settings.attempts):
            reason = f"begun {job.attempts} times without an end: {job.reason}"
            self._store.advance(job.id, State.READY, State.FAILED, now, reason)
        self._give_out(now)

    def _stop_cancelled(self) -> None:
        """Whoever moved a job on while a worker has it wants it no longer."""
        with self._lock:
            running = dict(self._running)
        for number, future in running.items():
            job = self._store.job(number)
            if future is not None and job is not None and job.state is not State.RECONSTRUCTING:
                future.cancel()

    def _give_out(self, now: float) -> None:
        """In the order of the queue.

        A job that waits for running ones to free their memory lets nobody pass, or it might wait for ever; one that
        would not fit even if none ran waits for what else the machine does, and keeps no smaller one; but not for ever.
        """
        if len(self.running) >= self._settings.workers_at_once or not self._disk_has_room():
            return
        line = self._store.line(now, self._settings.attempts, LOOK_AHEAD)
        self._forget_needs({job.id for job in line})
        for job in line:
            if len(self.running) >= self._settings.workers_at_once:
                return
            if job.id in self.running:
                continue  # it was cancelled and asked for again, and its worker has not ended yet
            wanted, room = self._need(job), self._room()
            held = sum(self._needs[number][1].bytes for number in self.running if number in self._needs)
            never_more = self._shortages.look(job.id, wanted.bytes, room.free, now)
            if wanted.bytes > room.capacity:
                self._store.advance(job.id, State.READY, State.FAILED, now, _too_large(wanted, room))
            elif never_more is not None:
                self._store.advance(job.id, State.READY, State.FAILED, now, _never_free(wanted, never_more, room))
            elif wanted.bytes > room.free:
                self._explain(job, wanted, room.free, "other programs need the rest")
            elif held + wanted.bytes > room.free:
                self._explain(job, wanted, room.free - held, "it waits for a running job to end")
                return
            else:
                lease = self._settings.time_limit + LEASE_MARGIN
                claimed = self._store.claim(now, lease, self._settings.attempts, only=job.id)
                if claimed and not self._start(claimed):
                    return  # to find that out may have taken a process: the others have the next round

    def _explain(self, job: Job, wanted: Need, free: float, why: str) -> None:
        """Once, and not whenever what is free has changed a little."""
        if why not in job.reason:
            reason = (
                f"waits for memory: {wanted.words} need about {wanted.bytes / GB:.1f} GB, "
                f"{max(0.0, free) / GB:.1f} GB are free; {why}"
            )
            self._store.explain(job.id, State.READY, reason)

    def _need(self, job: Job) -> Need:
        """Reckoned once for the same images."""
        images, known = self._needs.get(job.id, ((), None))
        if known is None or images != job.images:
            known = need(self._store.find(job.images))
            self._needs[job.id] = job.images, known
        return known

    def _forget_needs(self, wanted: set[int]) -> None:
        keep = wanted | self.running
        self._needs = {number: known for number, known in self._needs.items() if number in keep}
        self._shortages.keep(wanted)

    def _start(self, job: Job) -> bool:
        """Whether a worker has it now."""
        with self._lock:
            self._running[job.id] = None
        try:
            manner = self._manner(job)
            future = self._executor.submit(self._work, self._prepare(job, manner), manner.recipe)
        except (NotConvertible, InvalidConfiguration) as error:
            self._store.advance(job.id, State.RECONSTRUCTING, State.FAILED, self._clock(), str(error))
        except Exception as error:
            # whatever kept it from being started is its own trouble: the loop goes on with the others
            log.exception("not_started", job=job.id)
            if is_full(error):
                self._wait_for_room(job)
            else:
                self._hand_back(job, f"it could not be started: {words(error)}", self._settings.pause)
        else:
            with self._lock:
                self._running[job.id] = future
            future.add_done_callback(lambda done: self._ended(job, done))
            return True
        with self._lock:
            del self._running[job.id]
        return False

    def _manner(self, job: Job) -> Manner:
        """As the job was begun; as the node is configured now where it was not begun yet.

        One that cannot be followed any more gives way to the present one, but where results of the job are delivered:
        other ones beside them, under the same numbers, would be taken for them.  Raises InvalidConfiguration.
        """
        delivered = self._outbox.has_delivered(job.id)
        if job.made_with or delivered:
            try:
                manner = self._followed(job.made_with or told_by(self._jobs_folder / str(job.id)))
            except InvalidConfiguration as error:
                if delivered:
                    raise InvalidConfiguration(
                        f"it is delivered, in part at least, and cannot be made alike: {error}; "
                        f"qsm-node reprocess {job.id} --recipe NAME makes a further result of its images"
                    ) from error
                log.warning("made_otherwise", job=job.id, why=str(error))
            else:
                if not job.made_with:
                    self._store.keep_manner(job.id, manner.written())
                return manner
        own: Recipe | None = self._apart(recipe_of, job) if job.recipe else None
        manner = Manner(own or self._recipe, self._scanners, self._output)
        self._store.keep_manner(job.id, manner.written())
        return manner

    def _followed(self, written: str) -> Manner:
        present = Manner(self._recipe, self._scanners, self._output)
        if written == present.written():
            return present
        followed: Manner = self._apart(read_manner, written)
        return followed

    def _prepare(self, job: Job, manner: Manner) -> Path:
        """The job's folder.  What an earlier job of that number left (before the database was rebuilt) goes first."""
        folder = self._jobs_folder / str(job.id)
        paths = self._store.paths(job.images)
        if gone := len(job.images) - len(paths):
            raise NotConvertible(f"{gone} of its {len(job.images)} images are gone from the spool; send them again")
        content = {
            "job": job.id,
            "group": job.group_key,
            "revision": job.revision,
            "created_at": job.created_at,
            "instances": paths,
            "scanners": manner.scanners,
            "output": manner.output,
            "device": self._settings.device,
            "recipe": {"name": manner.recipe.name, "digest": manner.recipe.digest()},
            "reprocessed": self._store.reprocessed_before(job) + 1 if job.recipe else 0,
            **({"own_recipe": job.recipe} if job.recipe else {}),  # for `rebuild`
        }
        encoded = json.dumps(content, indent=1).encode()
        description = folder / "job.json"
        if description.is_file() and description.read_bytes() == encoded:
            return folder
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        write_durably(description, encoded)
        return folder

    def _ended(self, job: Job, done: Future[Path]) -> None:
        """The executor's answer, on a thread of the executor."""
        try:
            self._judge(job, done)
        except sqlite3.OperationalError as error:
            log.error(
                "end_not_recorded_yet", job=job.id, error=str(error)
            )  # locked or full: the next round tries again
            with self._lock:
                self._unwritten.append((job, done))
            return
        except Exception:
            # the lease brings the job back if not even its end could be written down
            log.exception("end_not_recorded", job=job.id)
        with self._lock:
            self._running.pop(job.id, None)

    def _write_down_late(self) -> None:
        with self._lock:
            late, self._unwritten = self._unwritten, []
        for job, done in late:
            self._ended(job, done)

    def _wait_for_room(self, job: Job) -> None:
        """A full disk is no fault of the job: it gives back what it has written and keeps its attempts."""
        shutil.rmtree(self._jobs_folder / str(job.id) / "result.part", ignore_errors=True)
        now = self._clock()
        reason = "the disk was full: it is begun again when there is room"
        with self._store.transaction():
            if self._store.advance(
                job.id, State.RECONSTRUCTING, State.READY, now, reason, due_at=now + self._settings.pause
            ):
                self._store.forget_attempts(job.id, 1)

    def _judge(self, job: Job, done: Future[Path]) -> None:
        try:
            withheld = _withheld(done.result()) if self._settings.withhold_failed else ""
        except (CancelledError, WorkerStopped):
            with self._store.transaction():
                if self._store.advance(
                    job.id, State.RECONSTRUCTING, State.READY, self._clock(), "handed back: the node was stopped"
                ):
                    self._store.forget_attempts(job.id, 1)
        except Contradicted as error:
            self._store.advance(job.id, State.RECONSTRUCTING, State.REVIEW, self._clock(), str(error))
        except (NotConvertible, UnreadableObject) as error:
            self._store.advance(job.id, State.RECONSTRUCTING, State.FAILED, self._clock(), str(error))
        except WorkerDied as error:
            self._hand_back(job, str(error), self._settings.pause)
        except Exception as error:
            log.error("reconstruction_failed", job=job.id, exc_info=error)
            if is_full(error):
                return self._wait_for_room(job)
            self._hand_back(job, words(error), self._settings.pause)
        else:
            if withheld:
                self._store.advance(job.id, State.RECONSTRUCTING, State.REVIEW, self._clock(), withheld)
                return
            moved = self._store.advance(job.id, State.RECONSTRUCTING, State.RECONSTRUCTED, self._clock())
            if moved and self._destinations:
                self._register(job)
        return None

    def _hand_back(self, job: Job, reason: str, pause: float = 0.0) -> None:
        """To the next worker, or to nobody where the job was begun as often as is allowed.

        pause: in s, after the first attempt.
        """
        now = self._clock()
        pause = min(LONGEST_PAUSE, pause * PAUSE_FACTOR ** max(0, job.attempts - 1))
        reason = f"{reason} (attempt {job.attempts} of {self._settings.attempts})"
        target = State.READY if job.attempts < self._settings.attempts else State.FAILED
        self._store.advance(job.id, State.RECONSTRUCTING, target, now, reason, due_at=now + pause)

    def _register(self, job: Job) -> None:
        """Makes the rows of a finished job.

        Not called without a destination: a job stays reconstructed then, and its result on disk.
        """
        try:
            results = _results(self._jobs_folder / str(job.id) / "result" / "dicom")
        except UnreadableObject as error:
            make_anew(self._store, self._jobs_folder, job.id, State.RECONSTRUCTED, self._clock(), str(error))
        else:
            self._outbox.register(job, results, self._destinations, self._clock())


def _too_large(wanted: Need, room: Room) -> str:
    return (
        f"{wanted.words} need about {wanted.bytes / GB:.1f} GB of memory, more than the {room.capacity / GB:.1f} GB "
        f"that {room.words}, and retry"
    )


def _never_free(wanted: Need, most: float, room: Room) -> str:
    return (
        f"{wanted.words} need about {wanted.bytes / GB:.1f} GB of memory, and in {LONGEST_SHORTAGE / 3600:.0f} hours "
        f"other programs never left more than {most / GB:.1f} GB of the {room.capacity / GB:.1f} GB that {room.words}, "
        "or end those programs, and retry"
    )


def _withheld(result: Path) -> str:
    """Why a result is not to be sent; "" if it is."""
    grade = json.loads((result / "report.json").read_text(encoding="utf-8")).get("grade", {})
    if grade.get("grade") != "failed":
        return ""
    return (
        f"its quality has failed and it is not sent: {'; '.join(grade['grounds'])}. Look at map.png in its folder; "
        "withhold_failed = false below [reconstruct] and a retry send it"
    )


def _results(folder: Path) -> list[Result]:
    """Every instance of a result folder, in the order of their names.  Raises UnreadableObject if there is none."""
    try:
        found = [
            Result(str(meta.MediaStorageSOPInstanceUID), path, str(meta.MediaStorageSOPClassUID))
            for path in sorted(folder.glob("*.dcm"))
            for meta in [read_file_meta_info(path)]
        ]
    except (OSError, InvalidDicomError, AttributeError) as error:
        raise UnreadableObject(f"{folder} holds a file that cannot be read: {error}") from error
    if not found:
        raise UnreadableObject(f"{folder} holds no results")
    return found
