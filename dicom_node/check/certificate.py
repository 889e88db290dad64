"""Our certificate: whether it holds now and for how long, and who will believe it."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from dicom_node.check.finding import Finding
from dicom_node.peers import names_in
from dicom_node.tls import Files, UnusableCertificate

SOON = 30 * 86400.0
"""Seconds before a certificate ends from which people are warned."""


def certificate(files: Files, now: float) -> Iterator[Finding]:
    """files: can be read, and belong together.  Raises UnusableCertificate for one that does not hold now."""
    shown = _shown(files, files.certificate, partial=True)
    names = ", ".join(sorted(names_in(shown))) or "no name"
    yield _ending("certificate", f"for {names}", str(shown["notAfter"]), files.certificate, now)
    try:
        _shown(files, files.authorities)
        yield Finding("good", "chain", f"it is of an authority of {files.authorities}")
    except UnusableCertificate as error:
        yield Finding(
            "warning",
            "chain",
            f"peers that believe the authorities of {files.authorities} will not believe it: {error}",
            f"put the certificates between it and its authority into {files.certificate}, after it; let it be where "
            "peers believe another authority",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.authorities)
    authorities = context.get_ca_certs()
    one_holds = any(ssl.cert_time_to_seconds(str(authority["notAfter"])) >= now for authority in authorities)
    for authority in authorities:
        who = ", ".join(sorted(names_in(authority))) or "an authority without a name"
        found = _ending("authority", who, str(authority["notAfter"]), files.authorities, now)
        # A bundle holds old authorities beside new ones while peers change over.
        yield replace(found, verdict="warning") if one_holds and found.verdict == "FAILURE" else found
    if files.key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        yield Finding(
            "warning",
            "key",
            f"{files.key} can be read by others",
            f"chmod 0600 {files.key}; others may have it already",
        )


def _ending(what: str, who: str, ends_at: str, file: Path, now: float) -> Finding:
    days = (ssl.cert_time_to_seconds(ends_at) - now) / 86400
    if days < 0:
        return Finding("FAILURE", what, f"{who}, ended {-days:.0f} days ago", f"renew {file}, without a restart")
    if days * 86400 < SOON:
        return Finding("warning", what, f"{who}, ends in {days:.0f} days", f"renew {file}, without a restart")
    return Finding("good", what, f"{who}, ends in {days:.0f} days")


def _shown(files: Files, believed: Path, *, partial: bool = False) -> ssl._PeerCertRetDictType:
    """What our certificate says, as a client sees it that believes `believed`: told by a hand-shake with ourselves.

    partial: what is believed need be no authority.  Raises UnusableCertificate.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(files.certificate, files.key, password="")
    client.check_hostname = False
    if partial:
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(believed)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = client.wrap_bio(to_client, to_server)
    here = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (there, here, there):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            raise UnusableCertificate(f"{files.certificate}: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise UnusableCertificate(f"{files.certificate} is not valid: {error}") from error
    shown = there.getpeercert()
    assert shown, "the hand-shake is over"
    return shown
