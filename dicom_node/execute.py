"""One process for each job, behind the face of `concurrent.futures.Executor`.

A shared pool is broken for everybody when one of its workers is killed; here a job that kills its process fails alone.
The child is a fresh interpreter (`python -m dicom_node.worker`): it gets its thread settings before anything numeric is
imported, and it ends by itself when its parent is gone, so that a killed daemon leaves nobody working behind.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from os import environ, getpid, sysconf
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dicom_node.errors import NodeError

P = ParamSpec("P")
T = TypeVar("T")

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Read by the numeric libraries when they are loaded, so they must stand before the process starts."""


class WorkerDied(NodeError):
    """The process ended without an answer; the job alone is to blame, or the machine."""


class TimeLimitExceeded(WorkerDied):
    """The process was killed because it ran too long."""


class WorkerStopped(WorkerDied):
    """The process was stopped because the executor was shut down, or the call cancelled; no fault of the job."""


class Call(Future[T]):
    """One call.  `cancel` also stops it while it runs: its process is killed, and its exception is WorkerStopped."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    @property
    def stopped(self) -> bool:
        return self._stopped

    def cancel(self) -> bool:
        with self._guard:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
        return super().cancel()

    def begin(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Raises WorkerStopped where it was cancelled before."""
        with self._guard:
            if self._stopped:
                raise WorkerStopped("the worker was stopped")
            self._process = start()
            return self._process

    def resident(self) -> int:
        """Bytes of memory that its process holds now (proc_pid_statm(5))."""
        try:
            found = Path(f"/proc/{self._process.pid}/statm").read_text() if self._process else "0 0"
        except OSError:  # it has just ended, or this is not Linux
            return 0
        return int(found.split()[1]) * sysconf("SC_PAGE_SIZE")


class ProcessPerJob(Executor):
    """Runs at most `workers` calls at once, each in a process of its own.

    threads: what each process may use.  time_limit: seconds until a process is killed.
    initializer: called with `initargs` in each process before its job.  environment: added to that of this process.
    """

    def __init__(
        self,
        workers: int,
        threads: int,
        time_limit: float,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[object, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._time_limit = time_limit
        self._initializer = initializer
        self.initargs = initargs
        self._environment = {**environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(environment or {})}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="job")
        self._lock = threading.Lock()
        self._calls: set[Call[Any]] = set()
        self._stopping = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The future's exception is the call's own, or WorkerDied, TimeLimitExceeded, WorkerStopped."""
        content = pickle.dumps((self._initializer, self.initargs, fn, args, kwargs))
        call: Call[T] = Call()
        with self._lock:
            if self._stopping:
                raise RuntimeError("the executor was shut down")  # as those of the standard library say it
            self._calls.add(call)
        call.add_done_callback(self._over)
        self._pool.submit(self._answer, call, content)
        return call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With `cancel_futures` running processes are killed too; without it they may end their work."""
        with self._lock:
            self._stopping = True
            calls = list(self._calls)
        for call in calls if cancel_futures else ():
            call.cancel()
        self._pool.shutdown(wait=wait)

    def resident(self) -> int:
        """Bytes of memory that all processes hold now."""
        with self._lock:
            calls = list(self._calls)
        return sum(call.resident() for call in calls)

    def _over(self, call: Future[Any]) -> None:
        with self._lock:
            self._calls.discard(call)

    def _answer(self, call: Call[Any], content: bytes) -> None:
        if not call.set_running_or_notify_cancel():
            return
        try:
            found = self._run(call, content)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the answer to the call
            call.set_exception(error)
        else:
            call.set_result(found)

    def _run(self, call: Call[Any], content: bytes) -> Any:
        process = call.begin(self._start)
        try:
            answer, _ = process.communicate(content, timeout=self._time_limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise TimeLimitExceeded(
                f"the worker was killed after {self._time_limit:g} s; raise reconstruct.time_limit for large data"
            ) from None
        if process.returncode != 0:
            if call.stopped:
                raise WorkerStopped("the worker was stopped")
            raise WorkerDied(f"the worker ended without an answer: {_why(process.returncode)}")
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    def _start(self) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in a terminal reaches the daemon, and the daemon alone stops its workers.
        # -P: the working directory is no place to import from.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dicom_node.worker", str(getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            start_new_session=True,
        )


def _why(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}; its own words are on stderr"
    name = signal.Signals(-returncode).name
    return f"killed by {name}" + ("; was the memory exhausted?" if name == "SIGKILL" else "")
