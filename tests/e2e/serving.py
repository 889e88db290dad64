"""A real `qsm-node serve` that can be killed at a chosen state, and what its database says meanwhile.

Run as a script this is that process: it ends itself by SIGKILL at the moment a job has reached the state, right after
the commit, with no word to anybody.  Nothing in the node knows of it.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dicom_node.states import State
from dicom_node.store import Store
from tests.peers import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0
"""Seconds that a step of the node may take on a busy machine before the test gives up."""


class Serving:
    """A state folder with a configuration, and the process that serves it now.  Ends the process with the `with`.

    module: what is run, with the state to be killed at and the arguments of `qsm-node`.
    """

    def __init__(
        self,
        folder: Path,
        archive_port: int,
        *,
        commitment: bool = False,
        module: str = "tests.e2e.serving",
        **tables: dict[str, Any],
    ) -> None:
        self.state_folder = folder / "state"
        self.config = folder / "node.toml"
        self.port = free_port()
        self.module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (folder / "node.log").open("ab")
        settings: dict[str, dict[str, Any]] = {
            "node": {"state_folder": str(self.state_folder), "tick": 0.2},
            "receive": {"port": self.port},
            "watch": {"host": ""},
            "group": {"quiet_time": 3.0},
            "send": {"first_pause": 0.2, "response_timeout": 5.0},
        }
        for table, keys in tables.items():
            settings[table] = settings.get(table, {}) | keys
        lines = []
        for table, keys in settings.items():
            lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        lines += ["[[destination]]", 'name = "archive"', 'host = "127.0.0.1"', f"port = {archive_port}"]
        lines += ['ae_title = "ARCHIVE"', f"commitment = {json.dumps(commitment)}"]
        self.config.write_text("\n".join(lines))

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def start(self, kill_at: State | None = None) -> None:
        """Starts the node and returns when it serves, or has been killed before it could."""
        self.launch(kill_at)
        self.wait_until(lambda: self.ended or self.serves, "the node serves")

    def launch(self, kill_at: State | None = None) -> None:
        """Starts the node and waits for nothing."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", self.module, kill_at or "never", "serve", "--config", str(self.config)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},  # so that a worker can import what is played
            stderr=self._log,
        )

    @property
    def serves(self) -> bool:
        assert self._process is not None
        lock = self.state_folder / "node.lock"
        return lock.is_file() and f'"pid": {self._process.pid},' in lock.read_text()

    def kill(self) -> None:
        """kill -9 from outside."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait_killed(self) -> None:
        """Until the process has killed itself."""
        assert self._process is not None
        assert self._process.wait(PATIENCE) == -signal.SIGKILL, "the node ended in another way; see node.log"

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(PATIENCE)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> bool:
        assert self._process is not None
        return self._process.poll() is not None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.state_folder / "node.db", timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def states(self) -> dict[int, State]:
        return {number: State(state) for number, state in self.rows("SELECT id, state FROM jobs")}

    def moves(self, job: int) -> list[State]:
        return [State(target) for (target,) in self.rows(f"SELECT target FROM journal WHERE job = {job} ORDER BY id")]

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"after {PATIENCE:.0f} s still not: {what}; see node.log"
            time.sleep(0.02)

    def wait_for(self, state: State, job: int) -> None:
        self.wait_until(lambda: self.states().get(job) is state, f"job {job} is {state}")


def die_at(state: State) -> None:
    """From now on this process dies when a job has reached `state` and the database has it."""
    advance, claim, open_job, transaction = Store.advance, Store.claim, Store.open_job, Store.transaction
    reached = False

    def reach(store: Store, target: State) -> None:
        nonlocal reached
        reached = reached or target is state
        if reached and not store.database.conn.in_transaction:
            os.kill(os.getpid(), signal.SIGKILL)

    def advance_and_die(store: Store, job: int, source: State, target: State, *rest: Any, **named: Any) -> bool:
        moved = advance(store, job, source, target, *rest, **named)
        if moved:
            reach(store, target)
        return moved

    def claim_and_die(store: Store, *arguments: Any, **named: Any) -> Any:
        claimed = claim(store, *arguments, **named)
        if claimed is not None:
            reach(store, State.RECONSTRUCTING)
        return claimed

    def open_and_die(store: Store, *arguments: Any, **named: Any) -> Any:
        job = open_job(store, *arguments, **named)
        reach(store, State.WAITING)
        return job

    @contextmanager
    def commit_and_die(store: Store) -> Iterator[Any]:
        with transaction(store) as database:
            yield database
        if reached and not store.database.conn.in_transaction:
            os.kill(os.getpid(), signal.SIGKILL)

    Store.advance = advance_and_die  # type: ignore[method-assign]  # this process is here to be killed
    Store.claim = claim_and_die  # type: ignore[method-assign]
    Store.open_job = open_and_die  # type: ignore[method-assign]
    Store.transaction = commit_and_die  # type: ignore[method-assign]


if __name__ == "__main__":
    from dicom_node.commands import main

    if sys.argv[1] != "never":
        die_at(State(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
