"""From ready to sending: gives ready jobs to the executor and registers what comes back.

A worker gets a folder and a recipe.  One that dies, runs out of time or is stopped hands its job back, up to the
ceiling of attempts; a job of which no map can be made fails at once, with the reason.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from dicom_node.cleanup import make_anew
from dicom_node.errors import Contradicted, NotConvertible, UnreadableObject
from dicom_node.execute import WorkerDied, WorkerStopped
from dicom_node.outbox import Outbox, Result
from dicom_node.reconstruct import Recipe
from dicom_node.settings import Output, Reconstruct, Scanner
from dicom_node.spool import write_durably
from dicom_node.states import State
from dicom_node.store import Job, Store

Work = Callable[[Path, Recipe], Path]

LEASE_MARGIN = 60.0
"""Seconds that a lease outlives the time limit of its worker."""

log = structlog.get_logger(__name__)


class Dispatch:
    """Runs `work(job_folder, recipe)` for each ready job, at most `settings.workers` at once."""

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
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._executor = executor
        self._work = work
        self._recipe = recipe
        self._settings = settings
        self._jobs_folder = jobs_folder
        self._destinations = destinations
        self._clock = clock
        self._scanners = [scanner.model_dump() for scanner in scanners]
        self._output = (output or Output()).model_dump(mode="json")
        self._running: set[int] = set()
        self._lock = threading.Lock()

    @property
    def running(self) -> frozenset[int]:
        """The jobs that a worker of this process has."""
        with self._lock:
            return frozenset(self._running)

    def recover(self) -> None:
        """At the start: what a process that is gone was reconstructing is nobody's any more."""
        for job in self._store.jobs(State.RECONSTRUCTING):
            self._hand_back(job, "the node ended while a worker had it")

    def __call__(self) -> None:
        """One round: register results, take back expired leases, give out what is ready."""
        now = self._clock()
        if self._destinations:
            for job in self._store.jobs(State.RECONSTRUCTED):
                self._register(job)
        for job in self._store.jobs(State.RECONSTRUCTING):
            if job.id not in self.running and (job.lease_until or 0) < now:
                self._hand_back(job, "its lease ended without an answer")
        for job in self._store.jobs(State.READY):
            if job.attempts >= self._settings.attempts:
                reason = f"begun {job.attempts} times without an end: {job.reason}"
                self._store.advance(job.id, State.READY, State.FAILED, now, reason)
        while len(self.running) < self._settings.workers:
            claimed = self._store.claim(now, self._settings.time_limit + LEASE_MARGIN, self._settings.attempts)
            if claimed is None:
                break
            self._start(claimed)

    def _start(self, job: Job) -> None:
        with self._lock:
            self._running.add(job.id)
        try:
            future = self._executor.submit(self._work, self._prepare(job), self._recipe)
        except NotConvertible as error:
            self._store.advance(job.id, State.RECONSTRUCTING, State.FAILED, self._clock(), str(error))
        except Exception as error:
            # whatever kept it from being started is its own trouble: the loop goes on with the others
            log.exception("not_started", job=job.id)
            self._hand_back(job, f"it could not be started: {type(error).__name__}: {error}", self._settings.pause)
        else:
            future.add_done_callback(lambda done: self._ended(job, done))
            return
        with self._lock:
            self._running.discard(job.id)

    def _prepare(self, job: Job) -> Path:
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
            "scanners": self._scanners,
            "output": self._output,
            "device": self._settings.device,
            "recipe": {"name": self._recipe.name, "digest": self._recipe.digest()},
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
        except Exception:
            # the lease brings the job back if not even its end could be written down
            log.exception("end_not_recorded", job=job.id)
        finally:
            with self._lock:
                self._running.discard(job.id)

    def _judge(self, job: Job, done: Future[Path]) -> None:
        try:
            withheld = _withheld(done.result()) if self._settings.withhold_failed else ""
        except (CancelledError, WorkerStopped):
            with self._store.transaction():
                self._store.forget_attempts(job.id, 1)
                self._store.advance(
                    job.id, State.RECONSTRUCTING, State.READY, self._clock(), "handed back: the node was stopped"
                )
        except Contradicted as error:
            self._store.advance(job.id, State.RECONSTRUCTING, State.REVIEW, self._clock(), str(error))
        except (NotConvertible, UnreadableObject) as error:
            self._store.advance(job.id, State.RECONSTRUCTING, State.FAILED, self._clock(), str(error))
        except WorkerDied as error:
            self._hand_back(job, str(error), self._settings.pause)
        except Exception as error:
            log.error("reconstruction_failed", job=job.id, exc_info=error)
            self._hand_back(job, f"{type(error).__name__}: {error}", self._settings.pause)
        else:
            if withheld:
                self._store.advance(job.id, State.RECONSTRUCTING, State.REVIEW, self._clock(), withheld)
                return
            moved = self._store.advance(job.id, State.RECONSTRUCTING, State.RECONSTRUCTED, self._clock())
            if moved and self._destinations:
                self._register(job)

    def _hand_back(self, job: Job, reason: str, pause: float = 0.0) -> None:
        """To the next worker, or to nobody where the job was begun as often as is allowed."""
        now = self._clock()
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
