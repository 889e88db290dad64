"""The daemon: wires the line and keeps it going until it is told to stop.

    Receiver → Index → regroup → Dispatch → Courier for each destination

Each part reads what the one before left in spool or store, so the order of their rounds does not matter and a part that
fails in one round is there again in the next.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from dicom_node import exchange
from dicom_node.answer import Answerer
from dicom_node.call import Destination
from dicom_node.catalogue import Catalogue
from dicom_node.cleanup import clean_up
from dicom_node.commit import Commitments, Committer, ask
from dicom_node.config import Config, recipe_file
from dicom_node.convert import describe
from dicom_node.crontab import trigger
from dicom_node.deliver import Courier, SendFunction
from dicom_node.dispatch import Dispatch, Work
from dicom_node.errors import NodeError, PeerFailure
from dicom_node.execute import ProcessPerJob
from dicom_node.fetch import Arrivals, Fetcher, Fetches, retriever
from dicom_node.group import group
from dicom_node.index import Index
from dicom_node.log import configure
from dicom_node.memory import room
from dicom_node.narrate import Narrator
from dicom_node.outbox import Outbox
from dicom_node.receive import Receiver
from dicom_node.reconstruct import check_device, read_recipe, reconstruct_job
from dicom_node.regroup import regroup
from dicom_node.send import send
from dicom_node.spool import Spool
from dicom_node.store import Store
from dicom_node.stow import stow
from dicom_node.vouch import Vouch
from dicom_node.web import WebService

CLEAN_UP_EVERY = 3600.0
"""Seconds."""
LOOK_AROUND = 0.2
"""Seconds between two looks at whether the node is to stop."""
LOCK_FILE = "node.lock"
LOCK_PATIENCE, LOCK_PAUSE = 1.0, 0.05
"""Seconds to wait for the lock, and between two tries: `status` holds it for the moment in which it looks."""
log = structlog.get_logger(__name__)


def serve(config: Config) -> None:
    """Runs a node in the foreground until a signal stops it.

    Raises AlreadyRunning, InvalidConfiguration for the recipe, UnusableCertificate, OSError for port or disk.
    """
    with alone_in(config.node.state_folder) as tell:
        daemon = Daemon(config)
        daemon.stop_on_signals()
        daemon.run(tell)


class AlreadyRunning(NodeError):
    """Another process serves this state folder."""


class Daemon:
    """One node, to be made by whoever is `alone_in` its state folder.  `run` returns after `stop`.

    work, send_function: what reconstructs a job folder and what sends files; tests hand in others.
    """

    def __init__(
        self,
        config: Config,
        *,
        work: Work = reconstruct_job,
        send_function: SendFunction = send,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._clock = clock
        self._stopping = False
        root = config.node.state_folder
        jobs_folder = root / "jobs"
        jobs_folder.mkdir(parents=True, exist_ok=True)
        self.store = Store(root / "node.db")
        committing = exchange.committing(config)
        outbox = Outbox(self.store, frozenset(committing))
        spool = Spool(root)
        recipe = read_recipe(recipe_file(config.reconstruct.recipe))
        check_device(config.reconstruct.device)
        self.index = Index(self.store, spool, describe)
        identity = exchange.identity(config)
        peers = exchange.peers(config)
        calling = exchange.send_settings(config, identity)
        self._commitments = Commitments(self.store, outbox, committing, config.send, clock)
        vouch = Vouch(
            self.store, peers, calling, config.send, lambda: bool(self.index.pending), clock, lambda: self._stopping
        )
        services = [exchange.commitment_service(self._commitments, vouch)]
        catalogue = Catalogue(self.store, jobs_folder)
        if exchange.is_queried(config):
            answerer = Answerer(catalogue, peers, calling, lambda association: self.receiver.peer(association))
            services.append(answerer.service())
        self.receiver = Receiver(
            exchange.receive_settings(config),
            spool,
            self.index.take,
            self.index.object_to,
            clock,
            peers=peers,
            secure=exchange.secure(config, identity),
            services=services,
        )
        self._executor = ProcessPerJob(
            config.reconstruct.workers_at_once,
            config.reconstruct.threads_of_a_worker,
            config.reconstruct.time_limit,
            initializer=configure,
            initargs=(config.log.style, config.log.level),
        )
        names = [one.name for one in config.destinations] + [one.name for one in config.web_destinations]
        self.dispatch = Dispatch(
            self.store,
            outbox,
            self._executor,
            work,
            recipe,
            config.reconstruct,
            jobs_folder,
            names,
            clock,
            config.scanners,
            config.output,
            lambda: room(config.reconstruct.memory, self._executor.resident),
        )
        self._narrate = Narrator(self.store, jobs_folder)
        self._rounds: dict[str, tuple[Callable[[], None], float]] = {
            "group": (self._regroup, config.node.tick),
            "dispatch": (self.dispatch, config.node.tick),
            "narrate": (lambda: self._narrate(self.dispatch.running), config.node.tick),
            "vouch": (vouch, config.node.tick),
            "clean up": (lambda: clean_up(self.store, jobs_folder, config.retention, clock()), CLEAN_UP_EVERY),
        }
        if exchange.is_queried(config):
            self._rounds["catalogue"] = (catalogue, config.node.tick)
        self._fetches = Fetches(self.store)
        self._calling = calling
        self._outbox = outbox
        self._destination_names = names
        self._rounds |= self._fetching()
        self._rounds |= self._delivering(send_function, jobs_folder)

    def _fetching(self) -> dict[str, tuple[Callable[[], None], float]]:
        config = self._config
        archives = exchange.archives(config)
        if not archives:
            return {}
        arrivals = Arrivals(self.receiver.begin, self.receiver.hears)
        fetcher = Fetcher(
            self._fetches,
            archives,
            retriever(config.fetch.by, arrivals, lambda: self._stopping),
            self._calling,
            config.send,
            config.fetch.studies_per_hour,
            self._clock,
            lambda: self._stopping,
        )
        return {"fetch": (fetcher, config.node.tick)}

    def _delivering(
        self, send_function: SendFunction, jobs_folder: Path
    ) -> dict[str, tuple[Callable[[], None], float]]:
        """A courier for each destination, and somebody who asks for commitment where it is wanted."""
        config = self._config
        ways: list[tuple[Destination | WebService, SendFunction]] = [
            *((exchange.destination(one), send_function) for one in config.destinations),
            *((exchange.web_service(one), stow) for one in config.web_destinations),
        ]
        rounds: dict[str, tuple[Callable[[], None], float]] = {}
        for target, function in ways:
            courier = Courier(
                self.store,
                self._outbox,
                target,
                config.send,
                self._calling,
                function,
                jobs_folder,
                self._clock,
                lambda: self._stopping,
            )
            rounds[f"deliver to {target.name}"] = (courier, config.node.tick)
        for one in config.destinations:
            if one.commitment:
                committer = Committer(
                    self._commitments, exchange.destination(one), self._calling, ask, lambda: self._stopping
                )
                rounds[f"commit {one.name}"] = (committer, config.node.tick)
        return rounds

    def run(self, tell: Callable[[dict[str, float]], None] = lambda content: None) -> None:
        """Serves until `stop`.  tell: is given pid, port and start.  Raises OSError when the port cannot be had."""
        self.index.reconcile()
        self.dispatch.recover()
        self._outbox.refuse_unknown(self._destination_names, self._clock())
        self._outbox.ask_no_more(self._clock())
        self._commitments.take_up()
        self._outbox.settle(self._clock())
        self.receiver.start()
        self.index.start()
        tell({"pid": os.getpid(), "port": self.receiver.port, "started_at": self._clock()})
        scheduler = self._schedule()
        log.info("serving", port=self.receiver.port, state_folder=str(self._config.node.state_folder))
        while not self._stopping:
            time.sleep(LOOK_AROUND)
        log.info("stopping")
        self.receiver.stop()
        self.index.stop()
        scheduler.shutdown(wait=True)
        self._executor.shutdown(cancel_futures=True)
        self._narrate(())
        log.info("stopped")

    def stop(self) -> None:
        """Ends `run`: no new work, senders may finish, running jobs are handed back.

        Safe in a signal handler: a flag, because a lock that is waited for can miss a signal or dead-lock.
        """
        self._stopping = True

    def stop_on_signals(self) -> None:
        """SIGTERM and SIGINT stop the node; a second one ends it at once, which loses nothing either."""

        def handle(number: int, frame: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)

    def _regroup(self) -> None:
        # In this order: an association that has ended meanwhile has its last images at least in the queue.
        open_associations = self.receiver.open_associations
        open_associations |= self.index.pending
        regroup(self.store, group, self._clock(), self._config.group.quiet_time, open_associations)

    def _look(self) -> None:
        exchange.look(self._config, self._fetches, self._calling, self._clock(), lambda: self._stopping)

    def _schedule(self) -> BackgroundScheduler:
        """A round of each part at once, and then again and again, never two of the same part at a time.

        Each part has a thread, so that nobody waits for one that is slow.
        """
        at_once = datetime.now(UTC)
        scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(len(self._rounds) + 1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )
        for name, (part, seconds) in self._rounds.items():
            scheduler.add_job(self._guarded(name, part), "interval", seconds=seconds, id=name, next_run_time=at_once)
        if self._config.fetch.schedule:
            scheduler.add_job(
                self._guarded("look", self._look),
                trigger(self._config.fetch.schedule),
                id="look",
            )
        scheduler.start()
        return scheduler

    def _guarded(self, name: str, part: Callable[[], None]) -> Callable[[], None]:
        """A round that fails is told of and over; the next one comes."""

        def round_() -> None:
            try:
                part()
            except (OSError, sqlite3.OperationalError, PeerFailure) as error:
                log.error("round_failed", part=name, error=str(error))
            except Exception:
                log.exception("round_failed", part=name)

        return round_


def _has_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alone_in(state_folder: Path) -> Iterator[Callable[[dict[str, float]], None]]:
    """Holds the lock of a state folder, which the system frees with the process, and tells in it who serves.

    Raises AlreadyRunning.
    """
    state_folder.mkdir(parents=True, exist_ok=True)
    with (state_folder / LOCK_FILE).open("a+") as lock:
        deadline = time.monotonic() + LOCK_PATIENCE
        while not _has_locked(lock):
            if time.monotonic() > deadline:
                raise AlreadyRunning(
                    f"another process serves {state_folder}: stop it, or give this node another state_folder"
                )
            time.sleep(LOCK_PAUSE)

        def tell(content: dict[str, float]) -> None:
            lock.truncate(0)
            lock.write(json.dumps(content) + "\n")
            lock.flush()

        yield tell
        lock.truncate(0)
