"""An HTTP server on loopback that answers as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Asked:
    """A request.  headers: by name in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """body: bytes, or what is sent as JSON.  short: bytes that are promised and not sent."""

    code: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    short: int = 0


@dataclass(frozen=True)
class Served:
    """A running server.  asked: every request, in order."""

    url: str
    asked: list[Asked]


@contextmanager
def serving(answer: Callable[[Asked], Answer], tls: SSLContext | None = None) -> Iterator[Served]:
    """Runs until the end of the `with`."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {key.lower(): value for key, value in self.headers.items()}
            request = Asked(self.command, url.path, parse_qs(url.query, keep_blank_values=True), headers, body)
            asked.append(request)
            told = answer(request)
            sent = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
            self.send_response(told.code)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent) + told.short))
            self.end_headers()
            self.wfile.write(sent)
            self.close_connection = bool(told.short)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield Served(f"{'https' if tls else 'http'}://localhost:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()
