"""The tables of the configuration: every setting with its default, its limits and its meaning.

What settings must have in common, `rules` says.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

PORT = Field(ge=0, le=65535)


def _ae_title(value: str) -> str:
    """The value representation AE (PS3.5 6.2)."""
    if not 1 <= len(value.strip()) <= 16 or not value.isascii() or not value.isprintable() or "\\" in value:
        raise ValueError("expected 1 to 16 ASCII characters without backslash")
    return value.strip()


def _address(value: str) -> str:
    """A host name (RFC 1123), an IP address, or a network in CIDR notation."""
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        if "/" in value or not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
            raise ValueError("expected a host name, an IP address or a network such as 10.1.2.0/24") from error
    return value


def network(address: str) -> str:
    """The same for all spellings of an address, a network or a host name."""
    try:
        return str(ipaddress.ip_network(address, strict=False))
    except ValueError:
        return address.lower()


def _sop_class(value: str) -> str:
    from pydicom import uid  # only where a peer names one: `status` is to answer at once
    from pydicom.config import IGNORE

    named = getattr(uid, value, value)
    found = uid.UID(named if isinstance(named, str) else value, IGNORE)  # pydicom would warn of what is none
    if found.type != "SOP Class":
        raise ValueError("expected the UID or the keyword of a SOP class, such as MRImageStorage")
    return str(found)


def _schedule(value: str) -> str:
    if value:
        from dicom_node.crontab import trigger  # only where it is wanted: `status` is to answer at once

        try:
            trigger(value)
        except ValueError as error:
            raise ValueError(f"it is no line of crontab: {error}; expected such as '0 2 * * *'") from error
    return value


def _url(value: str) -> str:
    try:
        _ = urlsplit(value).port
    except ValueError as error:
        raise ValueError("its host or port cannot be read; expected such as https://host:8443/path") from error
    return value


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")]
AETitle = Annotated[str, AfterValidator(_ae_title)]
Seconds = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Days = Annotated[float, Field(ge=0, le=1e5, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


def _folder(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise ValueError(f"{error}; write the whole path") from error


_MAIL = r"^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,253}$"
"""What of RFC 5321 addresses of hospitals use; nothing that could begin another header."""


class Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _has_no_nul(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("it holds a NUL character, which no name and no path can; take it out")
        return value


class Node(Table):
    """state_folder: holds the spool, the jobs and the database; on one local file system.  tick: s."""

    ae_title: AETitle = "QSMNODE"
    state_folder: Annotated[Path, AfterValidator(_folder)] = Path("~/.local/state/qsm-node")
    tick: Seconds = 1.0


class Receive(Table):
    """The listening side; see `receive.ReceiveSettings`, whose names and defaults these are."""

    host: str = "127.0.0.1"
    port: Annotated[int, PORT] = 11112
    maximum_associations: Count = 20
    maximum_pdu: Annotated[int, Field(ge=4096, le=2**22)] = 2**17
    maximum_object_bytes: Annotated[int, Field(ge=2**20)] = 2**31
    association_timeout: Seconds = 30.0
    pdu_timeout: Seconds = 30.0
    idle_timeout: Seconds = 300.0
    drain_timeout: Seconds = 5.0


class Group(Table):
    """quiet_time: s without an image until what has come is taken for all there is."""

    quiet_time: Seconds = 60.0


class Reconstruct(Table):
    """recipe: a name below config/recipes or a file.  workers: jobs at once, 0 for one for every four cores.
    threads: of each worker, 0 shares the cores among them.

    memory: GB that all jobs at once may hold, 0 for what machine and cgroup have; see `memory`.  time_limit: s.
    attempts: how often a job is begun whose worker dies.  pause: s before it is begun again, four times as long each
    time.
    withhold_failed: whether a result that is graded as failed waits for a person instead of being sent.
    device: where the physics runs, see `reconstruction.reconstruct`.
    """

    recipe: str = "default"
    workers: Annotated[int, Field(ge=0)] = 0
    threads: Annotated[int, Field(ge=0)] = 0
    memory: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    time_limit: Seconds = 3600.0
    attempts: Count = 3
    pause: Annotated[float, Field(ge=0)] = 10.0
    withhold_failed: bool = True
    device: Literal["cpu", "cuda"] = "cpu"

    @property
    def workers_at_once(self) -> int:
        """What is beyond four cores serves another job."""
        return self.workers or max(1, _cores() // 4)

    @property
    def threads_of_a_worker(self) -> int:
        return self.threads or max(1, _cores() // self.workers_at_once)


STAGE_OF_MAP = {"t2star": "relaxation", "chi_para": "separation", "chi_dia": "separation"}
"""Of a recipe, which makes the map, and takes several echoes for it; the others every recipe makes."""


class Output(Table):
    """What is made beside the QSM, R2* and susceptibility-weighted series, the segmentation and the report.

    maps: further series.  objects: a page for people ("page", as "pdf" too), the window as a presentation state
    ("presentation", in colour too: "colour"), and for research archives float32 ("parametric") and, where the source
    was enhanced, one multi-frame object for each map ("enhanced").  reference_ranges: a table below config/ranges or a
    file, "" for none.
    """

    maps: tuple[Literal["t2star", "field", "local_field", "chi_para", "chi_dia"], ...] = ()
    objects: tuple[Literal["page", "pdf", "presentation", "colour", "parametric", "enhanced"], ...] = (
        "page",
        "presentation",
    )
    reference_ranges: str = ""


class Send(Table):
    """Pauses grow from first_pause by pause_factor to longest_pause; trying never ends.

    The timeouts are those of `call.SendSettings`; commitment_timeout: until storage commitment is asked for anew.
    """

    first_pause: Seconds = 5.0
    pause_factor: Annotated[float, Field(ge=1, le=100)] = 2.0
    longest_pause: Seconds = 3600.0
    connection_timeout: Seconds = 10.0
    association_timeout: Seconds = 30.0
    response_timeout: Seconds = 60.0
    idle_timeout: Seconds = 60.0
    commitment_timeout: Seconds = 3600.0

    def pause(self, attempts: int) -> float:
        """Seconds to wait after so many attempts."""
        steps = min(max(attempts, 1) - 1, 64)  # beyond 2^64 no pause is shorter than the longest
        return float(min(self.longest_pause, self.first_pause * self.pause_factor**steps))


class Destination(Table):
    """An archive that gets every result by C-STORE.

    certificate: the DNS name in its certificate; with one it is called over TLS.  commitment: whether it is asked to
    commit itself to keep what it stored; a job is `archived` only when it has.
    """

    name: Name
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    ae_title: AETitle
    certificate: str = ""
    commitment: bool = False


class WebService(Table):
    """An archive that speaks DICOMweb: a [[web_destination]] gets every result by STOW-RS, a [[web_source]] is searched
    by QIDO-RS and fetched from by WADO-RS; see `web.WebService`."""

    name: Name
    url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$"), AfterValidator(_url)]
    user: str = ""
    secret_file: str = ""
    token_url: Annotated[str, Field(pattern=r"^(https?://[^@\s#]+)?$"), AfterValidator(_url)] = ""
    scope: str = ""


class Tls(Table):
    """certificate, key, authorities: PEM files; without them there is no TLS.  port: where TLS is listened for.

    only: nobody is heard on the plain port.
    """

    certificate: str = ""
    key: str = ""
    authorities: str = ""
    port: Annotated[int, PORT] = 2762
    only: bool = False


class Peer(Table):
    """Who may associate with the node; see `peers.Peer`.  sop_classes: UIDs or keywords (MRImageStorage)."""

    name: Name
    ae_title: AETitle
    address: Annotated[str, AfterValidator(_address)]
    port: Annotated[int, PORT] = 0
    may: tuple[Literal["store", "query", "retrieve", "commit", "mpps"], ...] = ("store",)
    certificate: str = ""
    sop_classes: tuple[Annotated[str, AfterValidator(_sop_class)], ...] = ()
    associations: Count = 10


class Scanner(Table):
    """What the site knows of a scanner better than its images say.  It is told by either name, or by both.

    phase_sign, phase_half_turn, phase_zero: see `convert.Override`.  check: whether physics may stop its images.
    """

    station_name: str = ""
    serial_number: str = ""
    phase_sign: Literal["auto", "keep", "flip"] = "auto"
    phase_half_turn: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    phase_zero: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    check: bool = True


RESUME = 1.25
"""So many times `minimum_free_bytes` must be free before senders are taken again: a disk at its mark would else take
every other image of a series."""


class Retention(Table):
    """How long the node keeps what it need not keep; see `retention`.  Days, 0 for ever.

    results: folders of finished jobs.  sources: images whose results are delivered.  left_alone: images that are no
    acquisition for a map.  unused: images of others of which nothing is made, or nothing more.  quarantine: what was
    refused on arrival.  free_bytes: below this, results, images that are left alone, and then sources go before their
    time, oldest first, 0 for never.  minimum_free_bytes: below this nothing is taken, see `room`.
    """

    results: Days = 14.0
    sources: Days = 30.0
    left_alone: Days = 30.0
    unused: Days = 0.0
    quarantine: Days = 30.0
    free_bytes: Annotated[int, Field(ge=0)] = 5 * 2**30
    minimum_free_bytes: Annotated[int, Field(ge=2**24)] = 2**30


class Fetch(Table):
    """What the node brings itself from an archive.

    peer: the archive, by the name of a [[peer]] with a port.  by: C-MOVE to ourselves, or C-GET.  schedule: when it
    looks for new studies, as in crontab, in the machine's time; "" for never.  days: how far back it looks then, or as
    far as the last look that came to its end, whichever is longer ago.
    """

    peer: str = ""
    by: Literal["move", "get"] = "move"
    schedule: Annotated[str, AfterValidator(_schedule)] = ""
    days: Count = 2
    studies_per_hour: Annotated[float, Field(gt=0, le=3600)] = 60.0


class Watch(Table):
    """Where the page, the metrics and the health of the node are served, read-only, by HTTP.

    host: "" for nowhere.  names: what the node is called there besides its addresses and "localhost": a request for any
    other name is not answered.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, PORT] = 8112
    names: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,253}$")], ...] = ()


class Notify(Table):
    """Who is told when a job fails, is refused, needs a look or lacks images, when objects are not taken, when a
    destination takes nothing for `silent_after` seconds, when no job is begun for as long although some are ready, and
    when the disk is nearly full; see `notify`.

    every: s between two messages at least; each holds all that came up since the last.  mail_security: "starttls",
    "tls" from the first byte, or "none".  *_secret_file: holds the password of mail_user; the webhook's bearer token.
    page: where people find the node's page, for the message.
    """

    every: Seconds = 900.0
    silent_after: Seconds = 3600.0
    mail_to: tuple[Annotated[str, Field(pattern=_MAIL)], ...] = ()
    mail_from: Annotated[str, Field(pattern=f"{_MAIL}|^$")] = ""
    mail_host: str = "localhost"
    mail_port: Annotated[int, Field(ge=1, le=65535)] = 587
    mail_security: Literal["starttls", "tls", "none"] = "starttls"
    mail_user: str = ""
    mail_secret_file: str = ""
    webhook: Annotated[str, Field(pattern=r"^(https?://[^@\s]+)?$"), AfterValidator(_url)] = ""
    webhook_secret_file: str = ""
    page: Annotated[str, Field(pattern=r"^(https?://\S+)?$")] = ""


class Audit(Table):
    """Where audit messages go (PS3.15 A.5), which name patients; see `trail`.

    host: of the repository, "" for none.  certificate: the DNS name in its certificate, where that is not `host`; with
    [tls] ours is shown and its authorities are believed, else those of the system.  site: AuditEnterpriseSiteID.
    """

    host: str = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 6514
    protocol: Literal["tls", "udp"] = "tls"
    certificate: str = ""
    site: str = ""


class Log(Table):
    style: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"
