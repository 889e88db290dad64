"""The watcher: wires what is watched to those who watch.

It is a guest of the line: a port that cannot be had is told in the log and tried again, and stops no image.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from dicom_node.contacts import Contact, Contacts, Event
from dicom_node.index import Reading
from dicom_node.settings import Watch
from dicom_node.store import Store
from dicom_node.surprise import words
from dicom_node.trail import Standing
from dicom_node.watch.health import Health
from dicom_node.watch.listener import Listener
from dicom_node.watch.metrics import Metrics
from dicom_node.watch.pages import About, Site
from dicom_node.watch.pulse import Pulse

LISTEN_AGAIN = 10.0
"""Seconds until a port that could not be had is tried again."""

log = structlog.get_logger(__name__)


class Watcher:
    """pulse: to be told of every round.  metrics: of everything that is counted.

    destinations, peers: names in the configuration by now.  port: of the receiver.  trouble, enough, audit, reading: as
    `Health` has them.
    """

    def __init__(
        self,
        settings: Watch,
        store: Store,
        jobs_folder: Path,
        *,
        ae_title: str,
        destinations: Callable[[], Sequence[str]],
        peers: Callable[[], Sequence[str]],
        port: Callable[[], int],
        trouble: Callable[[], str],
        enough: int,
        clock: Callable[[], float] = time.time,
        audit: Callable[[], Standing | None] = lambda: None,
        reading: Callable[[], Reading] = lambda: Reading(0),
    ) -> None:
        self._settings = settings
        self._store = store
        self._contacts = Contacts(store)
        self.pulse = Pulse(clock)
        self.metrics = Metrics(store, jobs_folder, self.pulse, destinations, peers, clock, audit, reading)
        health = Health(self.pulse, trouble, store.path, jobs_folder.parent, enough, audit, reading)
        about = About(ae_title, port, clock(), destinations)
        self._site = Site(store, jobs_folder, health, self.metrics, about, clock)
        self._move = store.last_move()
        self._listener: Listener | None = None
        self._tried_at = -float("inf")
        self._lock = threading.Lock()
        self._stopped = False

    @property
    def port(self) -> int:
        """Where it is listened for HTTP, 0 where it is not."""
        listener = self._listener
        return listener.port if listener else 0

    def contact(self, contact: Contact) -> None:
        """The receiver's `on_contact`."""
        if contact.event is Event.FETCHED:
            return
        self._contacts.take(contact)
        self.metrics.contact(contact)

    def __call__(self) -> None:
        """One round: listens if it does not, writes down who called, counts what has become of jobs."""
        with self._lock:
            if not self._stopped:
                self._listen()
        self._contacts()
        for move in self._store.journal(self._move):
            self._move = move.id  # first: one that cannot be counted is not to be met in each round
            try:
                self.metrics.moved(move)
            except (OSError, ValueError) as error:
                log.warning("not_counted", job=move.job, error=words(error))

    def stop(self) -> None:
        """Listens no more; what was left to be written down is."""
        with self._lock:
            self._stopped = True
            listener, self._listener = self._listener, None
        if listener:
            listener.stop()
        self._contacts()

    def _listen(self) -> None:
        settings = self._settings
        if self._listener or not settings.host or time.monotonic() < self._tried_at + LISTEN_AGAIN:
            return
        self._tried_at = time.monotonic()
        try:
            self._listener = Listener(settings.host, settings.port, settings.names, self._site)
        except OSError as error:
            log.error(
                "not_watched",
                host=settings.host,
                port=settings.port,
                error=str(error),
                do="give [watch] another port, or an empty host to have none",
            )
        else:
            log.info("watched", page=f"http://{settings.host}:{self._listener.port}/")
