"""Metrics for Prometheus, named after its practice: base units, `_total` for what only grows, labels of few values.

Counters begin at zero with the process, as Prometheus expects; everything else is asked of the store at each scrape.
Labels hold names of the configuration, states and stages; callers that are no peer are "unknown", whatever they call
themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Info, ProcessCollector, Summary, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from dicom_node import survey
from dicom_node.call import SendSettings
from dicom_node.contacts import Contact, Event
from dicom_node.deliver import SendFunction
from dicom_node.errors import PeerFailure
from dicom_node.index import Reading
from dicom_node.receive import Refused, Stored
from dicom_node.send import Delivery
from dicom_node.states import State
from dicom_node.store import Move, Store
from dicom_node.trail import Standing
from dicom_node.watch.pulse import Pulse

UNKNOWN = "unknown"

# They would be a second series for each, of when it began: all begin with qsm_node_start_time_seconds.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client 0.26 gives it no types


class Metrics:
    """What is counted, and what is asked.  destinations, peers: names, so that their series begin at zero.

    audit: how the trail fares, None where there is none.  reading: how far a start has come with the spool.
    """

    def __init__(
        self,
        store: Store,
        jobs_folder: Path,
        pulse: Pulse,
        destinations: Callable[[], Sequence[str]],
        peers: Callable[[], Sequence[str]],
        clock: Callable[[], float],
        audit: Callable[[], Standing | None] = lambda: None,
        reading: Callable[[], Reading] = lambda: Reading(0),
    ) -> None:
        self._jobs_folder = jobs_folder
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="", registry=self.registry)
        Info("qsm_node_build", "The software that runs.", registry=self.registry).info({"version": version("qsm-node")})
        self._instances = Counter(
            "qsm_node_instances_received",
            "Instances that came by C-STORE or were fetched: stored, repeated (the same again), refused, or set aside "
            "because the same UID came with other content.",
            ["outcome"],
            registry=self.registry,
        )
        self._associations = Counter(
            "qsm_node_associations", "Associations that were requested of the node.", ["peer", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self._denied = Counter(
            "qsm_node_requests_denied", "Requests that the peer has no right to make.", ["peer"], registry=self.registry
        )
        self._stages = Summary(
            "qsm_node_stage_seconds", "How long each stage of a reconstruction took.", ["stage"],
            registry=self.registry,
        )  # fmt: skip
        self._deliveries = Counter(
            "qsm_node_deliveries",
            "Answers of destinations to instances: stored, refused for good, or retry.",
            ["destination", "outcome"],
            registry=self.registry,
        )
        self._unreachable = Counter(
            "qsm_node_destination_failures",
            "How often a destination could not be reached, or broke off.",
            ["destination"],
            registry=self.registry,
        )
        self._destinations, self._peers = destinations, peers
        self.registry.register(_Asked(store, jobs_folder.parent, pulse, destinations, clock, audit, reading))

    def encoded(self, accept: str) -> tuple[bytes, str]:
        """All of them in the format that a scraper accepts, and its content type."""
        self._begin()
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _begin(self) -> None:
        """What has not happened yet is told as zero, of whoever is configured by now."""
        for outcome in ("stored", "repeated", "refused", "conflict"):
            self._instances.labels(outcome)
        for destination in self._destinations():
            self._unreachable.labels(destination)
            for outcome in ("stored", "refused", "retry"):
                self._deliveries.labels(destination, outcome)
        self._associations.labels(UNKNOWN, "rejected")
        for peer in self._peers():
            self._denied.labels(peer)
            for outcome in ("accepted", "rejected"):
                self._associations.labels(peer, outcome)

    # what is counted

    def stored(self, stored: Stored) -> None:
        self._instances.labels("repeated" if stored.repeated else "stored").inc()

    def refused(self, refused: Refused) -> None:
        self._instances.labels("refused" if refused.status else "conflict").inc()

    def contact(self, contact: Contact) -> None:
        if contact.event is not Event.CLOSED:
            outcome = "rejected" if contact.event is Event.REJECTED else "accepted"
            self._associations.labels(contact.peer or UNKNOWN, outcome).inc()
        if contact.denied:
            self._denied.labels(contact.peer or UNKNOWN).inc(contact.denied)

    def moved(self, move: Move) -> None:
        """Takes the seconds of each stage from the record of a job that was reconstructed."""
        if move.target is not State.RECONSTRUCTED:
            return
        try:
            record = json.loads((self._jobs_folder / str(move.job) / "result" / "report.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return  # it has been made anew since
        for stage, seconds in record.get("timings_s", {}).items():
            self._stages.labels(stage).observe(seconds)

    def counting(self, function: SendFunction, destination: str) -> SendFunction:
        """The same function; what the destination answers is counted on the way."""

        def send(files: Sequence[Path], to: Any, settings: SendSettings) -> Iterator[Delivery]:
            try:
                for delivery in function(files, to, settings):
                    self._deliveries.labels(destination, delivery.outcome).inc()
                    yield delivery
            except PeerFailure:
                self._unreachable.labels(destination).inc()
                raise

        return send


class _Asked(Collector):
    """What is so at the moment of a scrape."""

    def __init__(
        self,
        store: Store,
        state_folder: Path,
        pulse: Pulse,
        destinations: Callable[[], Sequence[str]],
        clock: Callable[[], float],
        audit: Callable[[], Standing | None],
        reading: Callable[[], Reading],
    ) -> None:
        self._audit = audit
        self._reading = reading
        self._store = store
        self._state_folder = state_folder
        self._pulse = pulse
        self._destinations = destinations
        self._clock = clock
        self._started_at = clock()

    def collect(self) -> Iterable[Metric]:
        yield _gauge("qsm_node_start_time_seconds", "When the node started.", self._started_at)
        yield from self._jobs()
        yield from self._waiting()
        disk = survey.disk(self._state_folder)
        yield _gauge("qsm_node_disk_free_bytes", "Free space for the state folder.", disk.free)
        yield _gauge("qsm_node_disk_size_bytes", "Size of the file system of the state folder.", disk.size)
        unread = "Files of the spool that are to be read before jobs, fetching and clean-up go on."
        yield _gauge("qsm_node_spool_unread_files", unread, self._reading().left)
        fetches = GaugeMetricFamily("qsm_node_fetches", "Series found in archives, by state.", labels=["state"])
        for state, number in survey.fetches(self._store).items():
            fetches.add_metric([state], number)
        yield fetches
        yield from self._told()
        failures = CounterMetricFamily("qsm_node_round_failures", "Rounds that failed, by part.", labels=["part"])
        ended = GaugeMetricFamily(
            "qsm_node_round_last_success_timestamp_seconds", "When a round last ended well, by part.", labels=["part"]
        )
        for part, beat in sorted(self._pulse.beats().items()):
            failures.add_metric([part], beat.failures)
            ended.add_metric([part], beat.ended_at or 0.0)
        yield failures
        yield ended

    def _told(self) -> Iterator[Metric]:
        """To the audit repository, if there is one."""
        standing = self._audit()
        if standing is None:
            return
        messages = CounterMetricFamily("qsm_node_audit_messages", "Audit messages: sent, or lost.", labels=["outcome"])
        messages.add_metric(["sent"], standing.sent)
        messages.add_metric(["lost"], standing.lost)
        yield messages
        yield _gauge("qsm_node_audit_queued", "Audit messages that are to be sent.", standing.queued)
        silent = "For how long the audit repository has taken nothing although messages wait; 0 if it takes them."
        yield _gauge("qsm_node_audit_silent_seconds", silent, standing.silent_for)

    def _jobs(self) -> Iterator[Metric]:
        jobs = GaugeMetricFamily("qsm_node_jobs", "Jobs by state.", labels=["state"])
        counts = survey.counts(self._store)
        for state, number in counts.items():
            jobs.add_metric([state.value], number)
        yield jobs
        yield _gauge("qsm_node_queue_length", "Jobs that are ready and wait for a worker.", counts[State.READY])
        since = survey.oldest_waiting(self._store)
        oldest = 0.0 if since is None else max(0.0, self._clock() - since)
        yield _gauge("qsm_node_queue_oldest_seconds", "For how long the oldest of them has been ready.", oldest)

    def _waiting(self) -> Iterator[Metric]:
        now = self._clock()
        pending = GaugeMetricFamily(
            "qsm_node_deliveries_pending", "Instances that a destination has yet to store.", labels=["destination"]
        )
        silent = GaugeMetricFamily(
            "qsm_node_destination_silent_seconds",
            "For how long a destination has stored nothing although something waits for it; 0 if nothing does.",
            labels=["destination"],
        )
        awaited = GaugeMetricFamily(
            "qsm_node_commitment_pending",
            "Instances that a destination has stored and has yet to commit itself to.",
            labels=["destination"],
        )
        for target in survey.targets(self._store, self._destinations()):
            pending.add_metric([target.name], target.pending)
            silent.add_metric([target.name], target.is_silent_for(now))
            awaited.add_metric([target.name], target.awaited)
        yield from (pending, silent, awaited)


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(name, documentation, value=value)
