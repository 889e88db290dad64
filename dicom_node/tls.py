"""Secure transport after BCP 195 (PS3.15 B.12): TLS 1.2 or newer, forward secrecy, both sides show a certificate.

The files are read again when one of them has changed, so that a renewed certificate needs no restart; while they cannot
be read, those that could be are used.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import structlog

from dicom_node.errors import NodeError

_TLS_1_2_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM"
"""Recommended by BCP 195 (RFC 9325 4.2); those of TLS 1.3 are all fit."""

log = structlog.get_logger(__name__)


class UnusableCertificate(NodeError):
    """Certificate, key or authorities that cannot be read or do not belong together."""


@dataclass(frozen=True)
class Files:
    """PEM files: our certificate with its chain, its key without a password, and whose certificates we believe."""

    certificate: Path
    key: Path
    authorities: Path


class Identity:
    """Our certificate and whom we believe.  Raises UnusableCertificate at first, if the files cannot be used."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self._lock = threading.Lock()
        self._version = _version(files)
        self._contexts = _load(files)

    def server(self) -> ssl.SSLContext:
        """For those who call us: they must show a certificate."""
        return self._current()[0]

    def client(self) -> ssl.SSLContext:
        """For those whom we call: the name in their certificate is checked."""
        return self._current()[1]

    def renew(self, other: Identity) -> None:
        """From now on the same as another; connections that are open go on."""
        with self._lock:
            self.files, self._version, self._contexts = other.files, other._version, other._contexts

    def _current(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        with self._lock:
            try:
                version = _version(self.files)
                if version != self._version:
                    self._contexts = _load(self.files)
                    self._version = version
                    log.info("certificates_reloaded", certificate=str(self.files.certificate))
            except UnusableCertificate as error:
                log.error("certificates_not_reloaded", error=str(error))
            return self._contexts


def bare_context(side: ssl._SSLMethod) -> ssl.SSLContext:
    """What BCP 195 asks for, without any certificate.  side: PROTOCOL_TLS_SERVER or PROTOCOL_TLS_CLIENT."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _version(files: Files) -> tuple[tuple[int, int, int], ...]:
    try:
        found = [path.stat() for path in (files.certificate, files.key, files.authorities)]
    except OSError as error:
        raise UnusableCertificate(f"{error.filename} cannot be read: {error.strerror}; see [tls]") from error
    return tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in found)


def _load(files: Files) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server, client = bare_context(ssl.PROTOCOL_TLS_SERVER), bare_context(ssl.PROTOCOL_TLS_CLIENT)
    for context in (server, client):
        try:
            # An empty password: a key that needs one would ask for it on a terminal that nobody watches.
            context.load_cert_chain(files.certificate, files.key, password="")
            context.load_verify_locations(files.authorities)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise UnusableCertificate(
                f"{files.certificate}, {files.key} and {files.authorities} cannot be used: {error}; expected PEM, "
                "a key of that certificate without a password, and at least one authority"
            ) from error
    return server, client
