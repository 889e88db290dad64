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
from os import environ, getpid
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
    """The process was stopped because the executor was shut down; no fault of the job."""


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
        self._initargs = initargs
        self._environment = {**environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **(environment or {})}
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="job")
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopping = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """The future's exception is the call's own, or WorkerDied, TimeLimitExceeded, WorkerStopped."""
        call = pickle.dumps((self._initializer, self._initargs, fn, args, kwargs))
        return self._pool.submit(self._run, call)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """With `cancel_futures` running processes are killed too; without it they may end their work."""
        if cancel_futures:
            with self._lock:
                self._stopping = True
                for process in self._running:
                    process.kill()
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)

    def _run(self, call: bytes) -> Any:
        process = self._start()
        try:
            answer, _ = process.communicate(call, timeout=self._time_limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise TimeLimitExceeded(
                f"the worker was killed after {self._time_limit:g} s; raise reconstruct.time_limit for large data"
            ) from None
        finally:
            with self._lock:
                self._running.discard(process)
        if process.returncode != 0:
            if self._stopping:
                raise WorkerStopped("the worker was stopped together with the node")
            raise WorkerDied(f"the worker ended without an answer: {_why(process.returncode)}")
        result, error = pickle.loads(answer)
        if error is not None:
            raise error
        return result

    def _start(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopping:
                raise WorkerStopped("the node is stopping")
            # A session of its own: Ctrl-C in a terminal reaches the daemon, and the daemon alone stops its workers.
            # -P: the working directory is no place to import from.
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "dicom_node.worker", str(getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
            self._running.add(process)
        return process


def _why(returncode: int) -> str:
    if returncode >= 0:
        return f"exit status {returncode}; its own words are on stderr"
    name = signal.Signals(-returncode).name
    return f"killed by {name}" + ("; was the memory exhausted?" if name == "SIGKILL" else "")
