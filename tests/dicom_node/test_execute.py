"""One process for each job: what a job does to its process happens to it alone."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from dicom_node.execute import ProcessPerJob, TimeLimitExceeded, WorkerDied, WorkerStopped
from dicom_node.surprise import NotPortable
from dicom_node.worker import OOM_SCORE

ROOT = Path(__file__).parents[2]
IMPORTABLE = {"PYTHONPATH": str(ROOT)}


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("two arguments went in, one string comes out")


def environment(name: str) -> str | None:
    print("a library that prints must not spoil the answer")
    return os.environ.get(name)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave() -> None:
    os._exit(3)


def fail(kind: type[Exception], *args: object) -> None:
    raise kind(*args)


def sleep(seconds: float, mark: Path | None = None) -> int:
    if mark is not None:
        mark.write_text(str(os.getpid()))
    time.sleep(seconds)
    return os.getpid()


@pytest.fixture
def executor() -> Iterator[ProcessPerJob]:
    with ProcessPerJob(2, threads=3, time_limit=60, environment=IMPORTABLE) as executor:
        yield executor


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.01)
    pytest.fail(f"{path} was never written")


def test_answers_and_thread_settings_arrive(executor: ProcessPerJob) -> None:
    answers = [executor.submit(environment, name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")]
    assert [a.result() for a in answers] == ["3", "3"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told whom to kill")
def test_a_worker_goes_before_the_node_when_memory_ends(executor: ProcessPerJob) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(executor.submit(Path("/proc/self/oom_score_adj").read_text).result()) == max(own, OOM_SCORE)


def test_a_killed_or_leaving_process_fails_alone(executor: ProcessPerJob) -> None:
    killed, left, fine = executor.submit(die), executor.submit(leave), executor.submit(sleep, 0.1)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        killed.result()
    with pytest.raises(WorkerDied, match="exit status 3"):
        left.result()
    assert fine.result() not in (0, os.getpid())


def test_the_jobs_own_error_arrives_with_its_traceback(executor: ProcessPerJob) -> None:
    with pytest.raises(ValueError, match="no brain") as caught:
        executor.submit(fail, ValueError, "no brain").result()
    assert any("in fail" in note for note in caught.value.__notes__)
    with pytest.raises(NotPortable, match=r"Unpicklable at .*test_execute:\d+"):
        executor.submit(fail, Unpicklable, 1, 2).result()


def test_the_time_limit_ends_the_process(tmp_path: Path) -> None:
    with ProcessPerJob(1, threads=1, time_limit=1.5, environment=IMPORTABLE) as executor:
        slow = executor.submit(sleep, 60.0, tmp_path / "pid")
        with pytest.raises(TimeLimitExceeded, match=r"after 1\.5 s"):
            slow.result()
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_shutdown_stops_what_runs_and_what_waits(tmp_path: Path) -> None:
    executor = ProcessPerJob(1, threads=1, time_limit=60, environment=IMPORTABLE)
    running, waiting = executor.submit(sleep, 60.0, tmp_path / "pid"), executor.submit(sleep, 60.0)
    pid = int(wait_for(tmp_path / "pid"))
    executor.shutdown(cancel_futures=True)
    with pytest.raises(WorkerStopped):
        running.result()
    with pytest.raises((CancelledError, WorkerStopped)):
        waiting.result()
    assert is_gone(pid)


def test_a_killed_parent_leaves_no_worker_behind(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from dicom_node.execute import ProcessPerJob
from tests.dicom_node.test_execute import sleep
ProcessPerJob(1, threads=1, time_limit=60).submit(sleep, 60.0, Path(sys.argv[1])).result()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "pid"], env={**os.environ, **IMPORTABLE}, cwd=ROOT
    )
    worker = int(wait_for(tmp_path / "pid"))
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while not is_gone(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert is_gone(worker)


def is_gone(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text() if sys.platform == "linux" else ""
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return True
    return status.rpartition(")")[2].split()[:1] == ["Z"]


def test_a_call_that_is_cancelled_while_it_runs_is_stopped_alone(executor: ProcessPerJob, tmp_path: Path) -> None:
    running, other = executor.submit(sleep, 60.0, tmp_path / "pid"), executor.submit(sleep, 0.5)
    pid = int(wait_for(tmp_path / "pid"))
    assert executor.resident() > 2**20
    running.cancel()
    with pytest.raises(WorkerStopped):
        running.result(timeout=30)
    assert is_gone(pid)
    running.cancel()
    assert other.result(timeout=30) != pid


def test_a_call_that_is_cancelled_before_it_begins_never_does(tmp_path: Path) -> None:
    with ProcessPerJob(1, threads=1, time_limit=60, environment=IMPORTABLE) as executor:
        first, second = executor.submit(sleep, 0.2), executor.submit(sleep, 0.0, tmp_path / "pid")
        assert second.cancel()
        first.result(timeout=30)
    assert second.cancelled()
    assert not (tmp_path / "pid").exists()
    assert executor.resident() == 0


def hoard() -> int:
    """Asks for more memory than its process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    return len(bytearray(2**32))


def test_a_process_whose_memory_ends_fails_alone(executor: ProcessPerJob) -> None:
    greedy, fine = executor.submit(hoard), executor.submit(sleep, 0.1)
    with pytest.raises(MemoryError):
        greedy.result(timeout=60)
    assert fine.result(timeout=60)
