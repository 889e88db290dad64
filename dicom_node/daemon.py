"""The daemon: wires the line and keeps it going until it is told to stop.

    Receiver → Index → regroup → Dispatch → Courier for each destination

Each part reads what the one before left in spool or store, so the order of their rounds does not matter and a part that
fails in one round is there again in the next.
"""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping
from datetime import date
from types import MappingProxyType

import structlog

from dicom_node import exchange
from dicom_node.alone import alone_in
from dicom_node.answer import Answerer
from dicom_node.apart import Apart, in_place, in_process, reconstruct_job
from dicom_node.call import Destination
from dicom_node.catalogue import Catalogue
from dicom_node.clock import SteadyClock
from dicom_node.commit import Commitments, Committer, ask
from dicom_node.config import Config, recipe_file
from dicom_node.contacts import Contact
from dicom_node.convert import describe
from dicom_node.deliver import Courier, SendFunction
from dicom_node.dispatch import LONGEST_PAUSE, Dispatch, Work
from dicom_node.errors import NodeError, PeerFailure
from dicom_node.execute import ProcessPerJob
from dicom_node.fetch import Arrivals, Fetcher, retriever
from dicom_node.fetches import Fetches
from dicom_node.group import group
from dicom_node.index import Index
from dicom_node.ledger import EVERY, Ledger
from dicom_node.log import configure
from dicom_node.lookout import Lookout
from dicom_node.memory import room
from dicom_node.messengers import messengers
from dicom_node.mpps import ProcedureSteps
from dicom_node.narrate import Narrator
from dicom_node.notify import Notifier
from dicom_node.outbox import Outbox
from dicom_node.rebuild import LEDGER, DatabaseDamaged, is_damage, open_store
from dicom_node.receive import Receiver, Refused, Stored
from dicom_node.recipes import Recipe, usable_recipe
from dicom_node.regroup import regroup
from dicom_node.reload import change
from dicom_node.retention import Sweeper
from dicom_node.room import Room
from dicom_node.rounds import Parts, Rounds
from dicom_node.send import send
from dicom_node.spool import Spool
from dicom_node.stow import stow
from dicom_node.supervise import Supervisor, for_ports, inherited
from dicom_node.trail import Trail
from dicom_node.vouch import Vouch
from dicom_node.wado import Landing
from dicom_node.watch.watcher import Watcher
from dicom_node.web import WebService
from dicom_node.witness import Witness

CLEAN_UP_EVERY = 300.0
"""Seconds."""
SETTLE_EVERY = 10.0
"""Seconds between two looks at what lies in the outbox for destinations that are gone."""
LOOK_AROUND = 0.2
"""Seconds between two looks at whether the node is to stop."""
STUCK_AFTER = 180.0
"""Seconds without a round of what never waits for a peer, after which the node calls itself stuck."""
LONGEST_LOOK = 5.0
"""Seconds of a round of grouping, after which the next one goes on: after an upgrade all studies are looked at."""
TOLD_AFRESH = 1.0
"""Seconds by which our clock and the machine's have come nearer or parted until that is told afresh."""
OF_ALL_IMAGES = frozenset({"group", "dispatch", "vouch", "clean up", "fetch", "look"})
"""Parts that wait until a start has read the spool: what is whole by the rows that there are before need not be."""

log = structlog.get_logger(__name__)


def serve(config: Config, read: Callable[[], Config]) -> None:
    """Runs a node in the foreground until a signal stops it.

    read: the configuration as it is by now, for SIGHUP.  Raises AlreadyRunning, InvalidConfiguration for the recipe,
    UnusableCertificate, OSError for port or disk.
    """
    supervisor, sockets = Supervisor(), inherited()
    with alone_in(config.node.state_folder) as tell:
        encrypted = bool(config.tls.certificate)
        given = for_ports(sockets, plain=not (encrypted and config.tls.only), tls=encrypted)
        daemon = Daemon(config, read=read, supervisor=supervisor, given=given, apart=in_process)
        daemon.heed_signals()
        daemon.run(tell)


class Daemon:
    """One node, to be made by whoever is `alone_in` its state folder.  `run` returns after `stop`.

    work, send_function: what reconstructs a job folder and what sends files; tests hand in others.  read: the
    configuration as it is by now.  given: sockets that listen already, by whether for TLS.  apart: calls what needs the
    libraries of the physics.
    """

    def __init__(
        self,
        config: Config,
        *,
        work: Work = reconstruct_job,
        send_function: SendFunction = send,
        clock: Callable[[], float] | None = None,
        read: Callable[[], Config] | None = None,
        supervisor: Supervisor | None = None,
        given: Mapping[bool, socket.socket] = MappingProxyType({}),
        apart: Apart = in_place,
    ) -> None:
        self._config = config
        self._apart = apart
        self._read = read or (lambda: config)
        self._supervisor = supervisor or Supervisor({})
        self._reload_asked = False
        self._send_function = send_function
        dates = clock or time.time  # of what others are told: theirs are to be compared with
        self._clock = clock = clock or SteadyClock()
        self._stopping = False
        self._damage: sqlite3.Error | None = None
        self._ahead = self._started_at = 0.0
        self._news: dict[str, str | bool] = {}
        self._tell: Callable[[dict[str, float | str]], None] = lambda content: None
        root = config.node.state_folder
        jobs_folder = root / "jobs"
        jobs_folder.mkdir(parents=True, exist_ok=True)
        self.store = open_store(root, clock())
        committing = exchange.committing(config)
        outbox = Outbox(self.store, frozenset(committing))
        self._spool = spool = Spool(root, reserve=config.retention.minimum_free_bytes)
        recipe = self._recipe(config)
        self.index = Index(self.store, spool, describe)
        self._identity = identity = exchange.identity(config)
        self._peers = peers = exchange.peers(config)
        calling = exchange.send_settings(config, identity)
        self._commitments = Commitments(self.store, outbox, committing, config.send, clock)
        self._vouch = vouch = Vouch(
            self.store,
            peers,
            calling,
            config.send,
            lambda: bool(self.index.pending),
            spool.holds,
            clock,
            lambda: self._stopping,
        )
        self._trail = Trail(config.audit, dates, identity.client if identity else None)
        self._witness = Witness(exchange.author(config), self._trail, dates)
        self.watcher = Watcher(
            config.watch,
            self.store,
            jobs_folder,
            ae_title=config.node.ae_title,
            destinations=lambda: exchange.destination_names(self._config),
            peers=lambda: [peer.name for peer in self._config.peers],
            port=lambda: self.receiver.port,
            trouble=lambda: "the node stops" if self._stopping else self._trouble(STUCK_AFTER),
            enough=config.retention.minimum_free_bytes,
            clock=clock,
            audit=lambda: self._trail.standing,
            reading=lambda: self.index.reading,
        )
        self._notifiers = {
            f"notify by {way}": Notifier(
                *(way, tell, self.store, root, config.node.ae_title, clock),
                *(config.notify.every, config.notify.silent_after, config.retention.minimum_free_bytes),
                config.notify.page,
            )
            for way, tell in messengers(config.notify)
        }
        self._catalogue = Catalogue(self.store, jobs_folder)
        self._answerer = Answerer(
            self._catalogue,
            peers,
            calling,
            lambda association: self.receiver.peer(association),
            self._witness.handed,
        )
        self.receiver = Receiver(
            exchange.receive_settings(config),
            spool,
            self._stored,
            self._refused,
            clock,
            peers=peers,
            secure=exchange.secure(config, identity),
            services=[
                exchange.commitment_service(self._commitments, vouch),
                exchange.procedure_step_service(ProcedureSteps(self.store, self._clock)),
                self._witness.service(self._answerer.service()),
            ],
            given=given,
            on_contact=self._contact,
        )
        self._executor = ProcessPerJob(
            config.reconstruct.workers_at_once,
            config.reconstruct.threads_of_a_worker,
            config.reconstruct.time_limit,
            initializer=configure,
            initargs=(config.log.style, config.log.level),
        )
        self.dispatch = Dispatch(
            self.store,
            outbox,
            self._executor,
            work,
            recipe,
            config.reconstruct,
            jobs_folder,
            exchange.destination_names(config),
            clock,
            config.scanners,
            config.output,
            lambda: room(config.reconstruct.memory, self._executor.resident),
            Room(root, config.retention.minimum_free_bytes).for_jobs,
            apart,
        )
        self._ledger = Ledger(self.store, root / LEDGER)
        self._narrate = Narrator(self.store, jobs_folder)
        self._jobs_folder = jobs_folder
        self._fetches = Fetches(self.store)
        self._calling = calling
        self._outbox = outbox
        self._regrouped = ""
        self._rounds = Rounds(self._parts())

    def _parts(self) -> Parts:
        """What goes round under the configuration that holds now."""
        config = self._config
        sweeper = Sweeper(self.store, self._spool, self._jobs_folder, config.retention, self._clock, self.index.restore)
        parts: dict[str, tuple[Callable[[], None], float]] = {
            "group": (self._regroup, config.node.tick),
            "dispatch": (self.dispatch, config.node.tick),
            "narrate": (lambda: self._narrate(self.dispatch.running), config.node.tick),
            "vouch": (self._vouch, config.node.tick),
            "introduce": (self._introduce_anew, config.node.tick),
            "settle": (self._settle_anew, SETTLE_EVERY),
            "watch": (self.watcher, config.node.tick),
            "ledger": (self._ledger, EVERY),
            "clean up": (sweeper, CLEAN_UP_EVERY),
        }
        if exchange.is_queried(config):
            parts["catalogue"] = (self._catalogue, config.node.tick)
        parts |= {name: (notifier, config.node.tick) for name, notifier in self._notifiers.items()}
        parts |= self._fetching() | self._delivering()
        return {
            name: (self._once_read(name, self._guarded(name, part)), every) for name, (part, every) in parts.items()
        }

    def _once_read(self, name: str, part: Callable[[], None]) -> Callable[[], None]:
        """A round that has to wait for the spool is none: nobody is told that it ended well."""
        if name in OF_ALL_IMAGES:
            return lambda: None if self.index.backlog else part()
        if name == "catalogue":
            return lambda: part() if self.index.knows_all else None
        return part

    def _fetching(self) -> dict[str, tuple[Callable[[], None], float]]:
        config = self._config
        archives = exchange.sources(config)
        if not archives:
            return {}
        landing = Landing(self.receiver.brings, config.receive.maximum_object_bytes, self._fetches.absent)
        arrivals = Arrivals(self.receiver.begin, self.receiver.hears, landing)
        fetcher = Fetcher(
            self._fetches,
            archives,
            retriever(config.fetch.by, arrivals, lambda: self._stopping),
            self._calling,
            config.send,
            config.fetch.studies_per_hour,
            self._clock,
            lambda: self._stopping,
            self._spool.refusal,
        )
        parts: dict[str, tuple[Callable[[], None], float]] = {"fetch": (fetcher, config.node.tick)}
        if config.fetch.schedule:
            asked = config.fetch
            lookout = Lookout(self.store, asked.peer, asked.schedule, asked.days, self._look, config.send, self._clock)
            parts["look"] = (lookout, config.node.tick)
        return parts

    def _look(self, since: date) -> None:
        exchange.look(
            self._config, self._fetches, self._calling, self._clock(), since, lambda: self._stopping, self._witness.asks
        )

    def _delivering(self) -> dict[str, tuple[Callable[[], None], float]]:
        """A courier for each destination, and somebody who asks for commitment where it is wanted."""
        config = self._config
        ways: list[tuple[Destination | WebService, SendFunction]] = [
            *((exchange.destination(one), self._send_function) for one in config.destinations),
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
                self._witness.watching(self.watcher.metrics.counting(function, target.name), target),
                self._jobs_folder,
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

    def run(self, tell: Callable[[dict[str, float | str]], None] = lambda content: None) -> None:
        """Serves until `stop`.  tell: is given pid, port and start, and what is wrong with the audit trail.

        Raises OSError when the port cannot be had, DatabaseDamaged when the database turned out to be so.
        """
        self._supervisor.status("Comparing what the spool holds with the database")
        self.index.compare()
        self.dispatch.recover()
        self._hasten()
        self._catalogue.sweep()
        self._settle()
        self.receiver.start()
        self.index.start()
        self._tell, self._started_at = tell, self._clock()
        self._introduce()
        self._rounds.start()
        self._trail.start()
        self._witness.started()
        log.info("serving", port=self.receiver.port, state_folder=str(self._config.node.state_folder))
        self._supervisor.ready(self._status())
        while not self._stopping:
            time.sleep(LOOK_AROUND)
            self._look_around()
        log.info("stopping")
        self._supervisor.stopping()
        self.receiver.stop()
        self._guarded("watch", self.watcher.stop)()  # a full disk must keep nothing below from its end
        self._rounds.renew({})
        while "dispatch" in self._rounds.running:  # once it gives out no more, what runs can be handed back
            time.sleep(LOOK_AROUND)
        self._executor.shutdown(cancel_futures=True)
        self.index.stop()
        self._rounds.stop()
        if not self._damage:
            self._guarded("ledger", self._ledger)()
            self._guarded("narrate", lambda: self._narrate(()))()
        self._witness.stopping()
        self._trail.stop()
        log.info("stopped")
        if self._damage:
            raise DatabaseDamaged(f"{self.store.path} is damaged: {self._damage}; start again: it is made anew then")

    def _hasten(self) -> None:
        pauses = self._config.send
        self.store.hasten(self._clock(), max(pauses.longest_pause, pauses.commitment_timeout, LONGEST_PAUSE))

    def _introduce(self) -> None:
        """Tells who serves, how far our clock is from the machine's (the commands go by ours), and what only this
        process knows of its troubles.
        """
        ahead, news = self._clock() - time.time(), self._latest()
        self._tell(
            {
                "pid": os.getpid(),
                "port": self.receiver.port,
                "started_at": self._started_at,
                "clock_ahead": round(ahead, 1),
                **news,
            }
        )
        self._ahead, self._news = ahead, news

    def _introduce_anew(self) -> None:
        if abs(self._clock() - time.time() - self._ahead) > TOLD_AFRESH or self._news != self._latest():
            self._introduce()

    def _latest(self) -> dict[str, str | bool]:
        standing = self._trail.standing
        return {"audit": standing.trouble if standing else "", "reads_anew": self.index.backlog > 0}

    def _look_around(self) -> None:
        if self._reload_asked:
            self._reload_asked = False
            self.reload()
        if self.index.damage and not self._stopping:
            self._damage = self.index.damage
            self.stop()
        trouble = self._trouble(self._supervisor.patience / 2) if self._supervisor.patience else ""
        self._supervisor.status(f"Stuck: {trouble}" if trouble else self._status())
        self._supervisor.feed(trouble)

    def _settle_anew(self) -> None:
        """Once nobody sends any more to destinations that are gone: after a reload, or after jobs begun before it."""
        if self._rounds.settled:
            self._settle()

    def _settle(self) -> None:
        """What lies in the outbox for destinations that are gone, and what is still asked of those that are here."""
        self._outbox.refuse_unknown(exchange.destination_names(self._config), self._clock())
        self._outbox.ask_no_more(self._clock())
        self._commitments.take_up()
        self._outbox.settle(self._clock())

    def _status(self) -> str:
        """One line for the service manager."""
        unread = f", {self.index.backlog} files of the spool to be read first" if self.index.backlog else ""
        return (
            f"Serving port {self.receiver.port}: {len(self.receiver.open_associations)} associations open, "
            f"{len(self.dispatch.running)} jobs running{unread}"
        )

    def _trouble(self, limit: float) -> str:
        """Why the line is not alive, "" where it is.  limit: in s.

        What waits for peers is not looked at: they may take as long as their time-outs let them.
        """
        if (silent := time.monotonic() - self.receiver.accepting_at) > limit:
            return f"callers were last looked for {silent:.0f} s ago"
        if not self.index.is_alive:
            return "the thread that indexes what was received has ended"
        if (stuck := self.index.stuck_for) > limit:
            return f"what was received has been waiting to be indexed for {stuck:.0f} s"
        for name in ("group", "dispatch"):
            if (silent := self._rounds.silent(name)) > limit:
                return f"the last round of {name} ended {silent:.0f} s ago"
        return ""

    def reload(self) -> None:
        """Reads the configuration anew: all of it that can hold at once does, or, where it has a fault, none.

        Associations, jobs and deliveries that have begun go on as they began.
        """
        self._supervisor.reloading()
        try:
            changed = change(self._config, self._read())
            self._renew(changed.config)
        except (NodeError, OSError) as error:
            log.error(
                "configuration_refused",
                error=str(error),
                do="the one before goes on; mend the file, look with qsm-node check, and reload again",
            )
        else:
            log.info("configuration_reloaded", changed=changed.renewed)
            if changed.kept:
                log.warning("restart_needed", settings=changed.kept, do="these hold as before until the node restarts")
        self._supervisor.ready(self._status())

    def _renew(self, config: Config) -> None:
        recipe = self._recipe(config)
        identity = exchange.identity(config)
        # Nothing fails from here on.
        if self._identity and identity:
            self._identity.renew(identity)
        if config.log != self._config.log:
            configure(config.log.style, config.log.level)
            self._executor.initargs = (config.log.style, config.log.level)
        self._config = config
        self._calling = exchange.send_settings(config, self._identity)
        committing = exchange.committing(config)
        self._peers.renew(exchange.peers(config))
        self._outbox.renew(frozenset(committing))
        self._commitments.renew(committing, config.send)
        self._vouch.renew(self._calling, config.send)
        self._answerer.renew(self._calling)
        destinations = exchange.destination_names(config)
        self.dispatch.renew(recipe, config.reconstruct, destinations, config.scanners, config.output)
        self._guarded("settle", self._hasten)()  # a locked database keeps no new configuration from its begin
        self._rounds.renew(self._parts())

    def _recipe(self, config: Config) -> Recipe:
        recipe: Recipe = self._apart(usable_recipe, recipe_file(config.reconstruct.recipe), config.reconstruct.device)
        return recipe

    def stop(self) -> None:
        """Ends `run`: no new work, senders may finish, running jobs are handed back.

        Safe in a signal handler: a flag, because a lock that is waited for can miss a signal or dead-lock.
        """
        self._stopping = True

    def heed_signals(self) -> None:
        """SIGTERM and SIGINT stop the node; a second one ends it at once, which loses nothing either.

        SIGHUP has it read its configuration anew.
        """

        def handle(number: int, frame: object) -> None:
            signal.signal(number, signal.SIG_DFL)
            self.stop()

        def ask_to_reload(number: int, frame: object) -> None:
            self._reload_asked = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)
        signal.signal(signal.SIGHUP, ask_to_reload)

    def _stored(self, stored: Stored) -> None:
        self.index.take(stored)
        self.watcher.metrics.stored(stored)

    def _contact(self, contact: Contact) -> None:
        self.watcher.contact(contact)
        self._witness.contact(contact)

    def _refused(self, refused: Refused) -> None:
        self.index.object_to(refused)
        self.watcher.metrics.refused(refused)

    def _regroup(self) -> None:
        # In this order: an association that has ended meanwhile has its last images at least in the queue.
        open_associations = self.receiver.open_associations
        open_associations |= self.index.pending
        until = time.monotonic() + LONGEST_LOOK
        self._regrouped = regroup(
            *(self.store, group, self._clock(), self._config.group.quiet_time, open_associations),
            after=self._regrouped,
            enough=lambda: self._stopping or time.monotonic() > until,
        )

    def _guarded(self, name: str, part: Callable[[], None]) -> Callable[[], None]:
        """A round that fails is told of and over; the next one comes."""

        def round_() -> None:
            try:
                part()
            except (OSError, sqlite3.OperationalError, PeerFailure) as error:
                log.error("round_failed", part=name, error=str(error))
                self.watcher.pulse.failed(name, error)
            except Exception as error:
                log.exception("round_failed", part=name)
                self.watcher.pulse.failed(name, error)
                if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
                    self._damage = error
                    self.stop()
            else:
                self.watcher.pulse.ended(name)

        return round_
