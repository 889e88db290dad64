"""The HTTP listener: it only answers GET and HEAD, and bounds what anybody can take of it.

A few threads answer, a few more connections may wait, others are turned away at once; a request must have come whole
within seconds and within a few kB; each connection carries one request.  The Host of a request must be an address or a
name that is ours: a page of somebody else that has its own name point here (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import BaseRequestHandler, TCPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import structlog

WORKERS, MOST_WAITING = 4, 16
REQUEST_TIMEOUT = 5.0
"""Seconds for a request to arrive, from when its connection was accepted, and for an answer to be taken."""
AT_LEAST = 0.01
"""Seconds to read what has arrived, for one that had to wait for its turn."""
LONGEST_HEAD = 8192
"""Bytes of a request line and its headers."""

SECURITY_HEADERS = {
    # Nothing from elsewhere, no script, no frame, no form: what is shown is all there is.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Request:
    """path: undecoded.  query: the last of each name.  accept: what the caller would like to get."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    accept: str = ""


@dataclass(frozen=True)
class Answer:
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Respond = Callable[[Request], Answer]


class Listener:
    """Listens from its construction to `stop`.  Raises OSError when the address cannot be had.

    port: 0 takes a free one.  names: what the node may be called besides its addresses and "localhost".
    """

    def __init__(self, host: str, port: int, names: Sequence[str], respond: Respond) -> None:
        self._server = _Server(host, port, frozenset({"localhost", host.lower(), *map(str.lower, names)}), respond)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="watch", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(TCPServer):
    allow_reuse_address = True
    request_queue_size = WORKERS + MOST_WAITING

    def __init__(self, host: str, port: int, names: frozenset[str], respond: Respond) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.names = names
        self.respond = respond
        self._room = threading.Semaphore(WORKERS + MOST_WAITING)
        self._workers = ThreadPoolExecutor(WORKERS, "watch")  # before the port, which may be taken: that closes it
        super().__init__((host, port), BaseRequestHandler)  # in its place `_answer` makes a _Handler, with its deadline

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        deadline = time.monotonic() + REQUEST_TIMEOUT  # from now: those who say nothing wait it out side by side
        self._workers.submit(self._answer, request, client_address, deadline)

    def _answer(self, request: Any, client_address: Any, deadline: float) -> None:
        try:
            _Handler(request, client_address, self, deadline)
        except OSError:
            pass  # the caller went away, or took too long: nobody is left to be told
        except Exception:
            log.exception("watch_failed")
        finally:
            self.shutdown_request(request)
            self._room.release()

    def server_close(self) -> None:
        super().server_close()
        self._workers.shutdown(cancel_futures=True)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIMEOUT

    def __init__(self, request: Any, client_address: Any, server: _Server, deadline: float) -> None:
        self._deadline = deadline
        super().__init__(request, client_address, server)  # which does all

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BytesIO(self._head())

    def _head(self) -> bytes:
        """The request up to its empty line, or what came of it in time; one byte more than is allowed at most."""
        head = b""
        while b"\r\n\r\n" not in head and b"\n\n" not in head and len(head) <= LONGEST_HEAD:
            left = self._deadline - time.monotonic()
            if head and left <= 0:
                break
            self.connection.settimeout(max(AT_LEAST, left))
            if not (more := self.connection.recv(LONGEST_HEAD + 1 - len(head))):
                break
            head += more
        self.connection.settimeout(REQUEST_TIMEOUT)
        return head

    def handle(self) -> None:
        assert isinstance(self.rfile, io.BytesIO)
        if len(self.rfile.getbuffer()) > LONGEST_HEAD:
            self.request_version, self.command, self.requestline = "HTTP/1.0", "GET", ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            self.handle_one_request()

    def do_GET(self) -> None:
        self._send(self._answer())

    do_HEAD = do_GET  # noqa: N815 - http.server finds it by this name

    def __getattr__(self, name: str) -> Any:
        """Every other method: http.server would answer that it does not know it (RFC 9110 15.5.6)."""
        if name.startswith("do_"):
            refusal = Answer(b"only GET and HEAD are answered\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
            return lambda: self._send(refusal, {"Allow": "GET, HEAD"})
        raise AttributeError(name)

    def _answer(self) -> Answer:
        if not self._is_for_us():
            return Answer(b"this is no name of the node; see [watch] names\n", status=HTTPStatus.MISDIRECTED_REQUEST)
        try:
            target = urlsplit(self.path)
            query = dict(parse_qsl(target.query))
        except ValueError:
            return Answer(b"this is no address\n", status=HTTPStatus.BAD_REQUEST)
        try:
            return self.server.respond(Request(target.path, query, self.headers.get("Accept", "")))
        except Exception as error:
            log.error("watch_failed", exc_info=error)
            return Answer(b"this failed; the node's log says why\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)

    def _is_for_us(self) -> bool:
        """No name can be made to point at an address that is written as such."""
        given = self.headers.get_all("Host", [])
        try:
            (host,) = given
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.server.names
        return True

    def _send(self, answer: Answer, more: Mapping[str, str] | None = None) -> None:
        self.send_response(answer.status)
        for name, value in (SECURITY_HEADERS | dict(more or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server answers to a request that it cannot read: nothing of it is quoted."""
        status = HTTPStatus(code)
        self._send(Answer(f"{status.phrase}\n".encode(), status=status))

    def version_string(self) -> str:
        return "qsm-node"

    def log_message(self, format: str, *arguments: Any) -> None:
        """A scrape every few seconds is no news, and the path is the caller's own words."""
