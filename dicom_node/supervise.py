"""What the node tells its service manager, and what that has opened for it (sd_notify(3), sd_listen_fds(3)).

Both protocols are a few lines of text over what every process has, environment and sockets, and need no library.
Without a service manager nothing is told and nothing is inherited.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, MutableMapping

import structlog

_FIRST_INHERITED = 3
"""SD_LISTEN_FDS_START: the first descriptor after the standard streams."""
DICOM, DICOM_TLS = "dicom", "dicom-tls"
"""FileDescriptorName= of the listening sockets that may be handed to the node."""

log = structlog.get_logger(__name__)


class Supervisor:
    """The service manager, if there is one.

    environment: is read once and rid of what was meant for this process alone: workers are not to inherit it.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = int(environment.pop("WATCHDOG_USEC", "0"))
        watched = int(environment.pop("WATCHDOG_PID", os.getpid()))
        self.patience = microseconds / 1e6 if watched == os.getpid() else 0.0
        """Seconds without a sign of life after which the manager restarts the node, 0 where it does not watch."""
        self._fed_at = -float("inf")
        self._words = ""

    def ready(self, status: str) -> None:
        """The node serves, from now on or again."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read anew; `ready` follows.  The time is the one that nobody sets."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=Stopping: senders may finish, running jobs are handed back")

    def status(self, words: str) -> None:
        """One line, as `systemctl status` shows it.  No word of a patient."""
        if words != self._words:
            self._words = words
            self._tell(f"STATUS={words}")

    def feed(self, trouble: str) -> None:
        """The sign of life, three times as often as is asked for.

        trouble: why the line is not alive, "" where it is; with it no sign is given.
        """
        if not self.patience or time.monotonic() < self._fed_at + self.patience / 3:
            return
        self._fed_at = time.monotonic()
        if trouble:
            log.error("line_is_stuck", trouble=trouble, do="the service manager restarts the node; tell of it")
        else:
            self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                manager.sendto("\n".join(lines).encode(), address)
        except OSError as error:  # the node serves scanners, not its manager
            log.warning("manager_not_told", error=str(error))


def inherited(environment: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """The listening sockets that the service manager has handed over, by name; none where it has not."""
    for_us = environment.pop("LISTEN_PID", "") == str(os.getpid())
    count = int(environment.pop("LISTEN_FDS", "0"))
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if not for_us:
        return {}
    sockets = {}
    for place in range(count):
        descriptor = _FIRST_INHERITED + place
        os.set_inheritable(descriptor, False)
        name = names[place] if place < len(names) else "unknown"
        sockets[name] = socket.socket(fileno=descriptor)
    return sockets


def for_ports(sockets: Mapping[str, socket.socket], *, plain: bool, tls: bool) -> dict[bool, socket.socket]:
    """Those of the ports that are served, by whether for TLS.

    The others are closed, and told of: the service manager holds them open, and whoever calls there waits for nobody.
    """
    served = {name: is_tls for name, is_tls, wanted in ((DICOM, False, plain), (DICOM_TLS, True, tls)) if wanted}
    for name in sockets.keys() - served:
        log.warning(
            "socket_not_served",
            name=name,
            address=str(sockets[name].getsockname()),
            do="close its socket unit, or have [tls] serve it; callers wait there in vain",
        )
        sockets[name].close()
    return {is_tls: sockets[name] for name, is_tls in served.items() if name in sockets}
