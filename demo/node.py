"""The node as a hospital runs it: `qsm-node serve` in a process of its own, with its embedded defaults."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from demo.archive import Archive

QSM_NODE = [str(Path(sys.executable).with_name("qsm-node"))]
ENDED = {"sent", "refused", "failed", "incomplete", "review"}
"""States that the node does not leave by itself while there is a destination."""
START_LIMIT, STOP_LIMIT = 60.0, 60.0
QUIET_TIME = 10.0
"""Seconds.  A complete study does not wait for it; one with holes would."""


class Node:
    """Runs inside `with`; its state folder and log lie below `output`, its results go to `archive`."""

    ae_title = "QSMNODE"

    def __init__(self, output: Path, archive: Archive) -> None:
        self._state_folder = output / "node"
        self._config = output / "node.toml"
        self._config.write_text(
            f'[node]\nstate_folder = "{self._state_folder}"\n\n'
            f"[receive]\nport = 0\n\n[watch]\nport = 0\n\n"
            f"[group]\nquiet_time = {QUIET_TIME}\n\n"
            f'[[destination]]\nname = "archive"\nhost = "{archive.host}"\nport = {archive.port}\n'
            f'ae_title = "{archive.ae_title}"\n'
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Node:
        self._process = subprocess.Popen([*QSM_NODE, "serve", "--config", str(self._config)])
        deadline = time.monotonic() + START_LIMIT
        while not self.port:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"the node did not start within {START_LIMIT:.0f} s; its own words stand above")
            time.sleep(0.2)
            lock = self._state_folder / "node.lock"
            if lock.is_file() and lock.read_text():  # it serves: before, its database may be half made
                self.port = self._status()["node"].get("port") or 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def follow(self, deadline: float) -> list[dict[str, Any]]:
        """Waits until nothing is left to be done with what was sent; the jobs as `qsm-node status` has them.

        Raises TimeoutError at the deadline (time.monotonic), RuntimeError when the node dies.
        """
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"the node ended with {self._process.returncode}; its own words stand above")
            found = self._status()
            jobs: list[dict[str, Any]] = found["jobs"]
            if (jobs or found["foreign"]) and all(job["state"] in ENDED for job in jobs):
                for entry in found["foreign"]:
                    print(f"The node left {entry['count']} alone: {entry['reason']}")
                return jobs
            time.sleep(0.5)
        raise TimeoutError(
            "the node was not done in time; `qsm-node status` with the demonstration's node.toml says why"
        )

    def pictures(self) -> list[Path]:
        """The pictures of every result, oldest job first."""
        return sorted(self._state_folder.glob("jobs/*/result/map.png"))

    def _status(self) -> dict[str, Any]:
        command = [*QSM_NODE, "status", "--json", "--config", str(self._config)]
        answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return answer
