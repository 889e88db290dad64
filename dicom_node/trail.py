"""The audit trail: audit messages on their way to a repository, as syslog (RFC 5424) over TLS (RFC 5425) or UDP
(RFC 5426), as PS3.15 A.6 and A.7 have it.

Nobody waits for it: what happens is left in a bounded queue, and a thread of its own makes the messages and sends them.
What does not fit, and what is still there when the node ends, is lost and counted, and the log says so.  Where nothing
goes out for long, `standing` tells everybody who watches the node.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from dicom_node.settings import Audit
from dicom_node.surprise import words

MOST_QUEUED = 10_000
LARGEST_DATAGRAM = 65_000
"""Bytes; what is larger cannot go by UDP (RFC 5426 3.2)."""
PATIENCE = 10.0
"""Seconds to connect, for a hand-shake, and for the repository to take what is sent."""
PAUSE = 5.0
"""Seconds until a repository that is not there is tried again."""
SILENT_AFTER = 600.0
"""Seconds that a repository is away, after which people are told: to be started anew takes it minutes."""
PARTING = 3.0
"""Seconds that what is queued has to leave when the node ends."""
_PRIORITY = 10 * 8 + 5
"""Facility 10, security and authorization; severity 5, notice (PS3.15 A.6)."""
_MESSAGE_ID = "DICOM+RFC3881"
_BOM = b"\xef\xbb\xbf"

log = structlog.get_logger(__name__)

Compose = Callable[[], bytes]
"""Makes one audit message, when there is time for it."""


@dataclass(frozen=True)
class Standing:
    """How the trail fares.  Counts since the start; silent_for: seconds that messages have waited for a repository that
    does not take them.  trouble: what somebody should know, without a word of a message, "" where all is well.
    """

    sent: int
    lost: int
    queued: int
    silent_for: float
    trouble: str


class Trail:
    """Runs between `start` and `stop`; without a host it takes nothing.

    context: what TLS is spoken with; by default what the system's authorities vouch for is believed.
    """

    def __init__(
        self,
        settings: Audit,
        clock: Callable[[], float] = time.time,
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._context = context or ssl.create_default_context
        self._queue: deque[tuple[float, Compose]] = deque()
        self._ready = threading.Condition()
        self._stopping_at: float | None = None
        self._lost = 0
        self._overflows = False
        """Whether some were lost since the queue was last empty, which is told once."""
        self._sent = 0
        self._away: tuple[float, float] | None = None
        """When it went, by the clock that nobody sets and by the date."""
        self._told_at = 0.0
        self._ended = ""
        self._stream: ssl.SSLSocket | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def start(self) -> None:
        if self._settings.host:
            self._thread.start()

    @property
    def standing(self) -> Standing | None:
        """None where there is no repository."""
        if not self._settings.host:
            return None
        with self._ready:
            away = self._away
            silent = time.monotonic() - away[0] if away else 0.0
            return Standing(self._sent, self._lost, len(self._queue), silent, self._trouble(silent))

    def _trouble(self, silent: float) -> str:
        """The same words for as long as it lasts."""
        if self._ended:
            return f"the thread that sends audit messages has ended ({self._ended}): restart the node, and tell of it"
        if self._away is None or silent < SILENT_AFTER:
            return ""
        since = datetime.fromtimestamp(self._away[1], UTC)
        lost = "; messages are being lost" if len(self._queue) >= MOST_QUEUED else ""
        return f"the audit repository has taken nothing since {since:%Y-%m-%d %H:%M} UTC; the log says why{lost}"

    def stop(self) -> None:
        """Lets what is queued leave for a few seconds, then ends."""
        if self._thread.ident is None:  # it was never started
            return
        with self._ready:
            self._stopping_at = time.monotonic() + PARTING
            self._ready.notify()
        self._thread.join(PARTING + PATIENCE)
        with self._ready:
            left, self._lost = len(self._queue), self._lost + len(self._queue)
            self._queue.clear()
        if left:
            log.error("audit_lost", messages=left, why="the node ended before the repository took them")

    def tell(self, compose: Compose) -> None:
        """Never blocks, and never raises."""
        if not self._settings.host:
            return
        with self._ready:
            first = False
            if len(self._queue) >= MOST_QUEUED:
                self._lost += 1
                first, self._overflows = not self._overflows, True
            else:
                self._queue.append((self._clock(), compose))
                self._ready.notify()
        if first:
            log.error("audit_lost", why=f"{MOST_QUEUED} messages wait already: those that come now are only counted")

    @property
    def lost(self) -> int:
        return self._lost

    @property
    def sent(self) -> int:
        return self._sent

    def _run(self) -> None:
        try:
            while (entry := self._next()) is not None and self._deliver(*entry):
                with self._ready:
                    self._queue.popleft()
                    self._overflows = self._overflows and bool(self._queue)
        except BaseException as error:
            self._ended = type(error).__name__
            log.exception("audit_ended", do="restart the node, and tell of it: nothing more is sent to the repository")
        self._close()

    def _deliver(self, at: float, compose: Compose) -> bool:
        """Tries until it is sent; False when the node ends meanwhile."""
        try:
            message = syslog(compose(), at)
        except Exception:  # a study that cannot be described must not silence all others
            log.exception("audit_not_made")
            self._lose_one()
            return True
        while True:
            try:
                self._send(message)
            except Exception as error:  # noqa: BLE001 - such as UnicodeError of a host: the thread must not end
                self._close()
                self._tell_away(error)
                with self._ready:
                    if self._ready.wait_for(lambda: self._stopping_at is not None, PAUSE):
                        return False
                continue
            if self._away:
                log.info("audit_repository_back", queued=len(self._queue), lost=self._lost)
            self._away = None
            return True

    def _lose_one(self) -> None:
        with self._ready:
            self._lost += 1

    def _tell_away(self, error: Exception) -> None:
        """At once, and again for as long as it lasts: a line of last week is not read."""
        now = time.monotonic()
        if self._away is None or now >= self._told_at + SILENT_AFTER:
            why = str(error) if isinstance(error, OSError) else words(error)
            log.error("audit_repository_away", error=why, queued=len(self._queue), lost=self._lost)
            self._told_at = now
        self._away = self._away or (now, self._clock())

    def _next(self) -> tuple[float, Compose] | None:
        """The oldest, left where it is until it is sent; None when it is time to end."""
        with self._ready:
            while not self._queue and self._stopping_at is None:
                self._ready.wait()
            over = self._stopping_at is not None and time.monotonic() > self._stopping_at
            return self._queue[0] if self._queue and not over else None

    def _send(self, message: bytes) -> None:
        if self._settings.protocol == "udp":
            if len(message) > LARGEST_DATAGRAM:
                log.error("audit_too_large", size=len(message), most=LARGEST_DATAGRAM, do="set audit.protocol to tls")
                self._lose_one()
                return
            self._send_datagram(message)
        else:
            if self._stream is not None and _is_over(self._stream):
                self._close()
            if self._stream is None:
                self._stream = connect(self._settings, self._context())
            self._stream.sendall(b"%d %s" % (len(message), message))  # octet counting, RFC 5425 4.3
        self._sent += 1

    def _send_datagram(self, message: bytes) -> None:
        settings = self._settings
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_DGRAM
        )
        with socket.socket(family, kind, protocol) as datagram:
            datagram.sendto(message, address)

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()


def connect(settings: Audit, context: ssl.SSLContext) -> ssl.SSLSocket:
    """To the repository.  Raises OSError where it is not there or not who it should be."""
    plain = socket.create_connection((settings.host, settings.port), PATIENCE)
    try:
        return context.wrap_socket(plain, server_hostname=settings.certificate or settings.host)
    except BaseException:
        plain.close()
        raise


def syslog(message: bytes, at: float) -> bytes:
    """An audit message with the header of RFC 5424 6.2; it begins with a byte order mark, as UTF-8 does there."""
    stamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    host = socket.gethostname() or "-"
    header = f"<{_PRIORITY}>1 {stamp} {host} qsm-node {os.getpid()} {_MESSAGE_ID} - "
    return header.encode("ascii", "replace") + _BOM + message


def _is_over(stream: ssl.SSLSocket) -> bool:
    """Whether the repository has closed the connection: what is written then is lost without an error.

    It sends nothing of its own, so whatever there is to read is the end.
    """
    stream.settimeout(0)
    try:
        return not stream.recv(1)
    except ssl.SSLWantReadError:
        return False
    except OSError:
        return True
    finally:
        stream.settimeout(PATIENCE)
