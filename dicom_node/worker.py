"""The other side of `execute`: a process that makes one call and answers it on its standard output."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

from dicom_node import heap
from dicom_node.surprise import NotPortable, keep_place, words

PR_SET_PDEATHSIG = 1  # linux/prctl.h
OOM_SCORE = 500
"""Half of the memory's worth more likely to be killed."""
PARENT_CHECK = 0.2
"""Seconds between two looks at whether the parent still lives."""


def main() -> int:
    _end_with_parent(int(sys.argv[1]))
    _go_first_when_memory_ends()
    heap.keep()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not be taken for the answer
    with answers:
        answers.write(_answer(sys.stdin.buffer.read()))
    return 0


def _answer(call: bytes) -> bytes:
    try:
        initializer, initargs, function, args, kwargs = pickle.loads(call)
        if initializer is not None:
            initializer(*initargs)
        return pickle.dumps((function(*args, **kwargs), None))
    except Exception as error:  # noqa: BLE001 - every failure of the call is the answer to it
        return _portable(error)


def _portable(error: Exception) -> bytes:
    """The exception with its traceback as a note; in words where it cannot be pickled."""
    keep_place(error)
    try:
        answer = pickle.dumps((None, error))
        pickle.loads(answer)
    except Exception:  # noqa: BLE001 - an exception class may fail in any way when it is made again
        return pickle.dumps((None, NotPortable(words(error))))
    return answer


def _go_first_when_memory_ends() -> None:
    """The kernel should take the worker and leave the node, which begins the job again (proc_pid_oom_score_adj(5))."""
    with contextlib.suppress(OSError):  # not Linux, or a container that does not allow it: then the kernel chooses
        score = Path("/proc/self/oom_score_adj")
        score.write_text(str(max(int(score.read_text()), OOM_SCORE)))


def _end_with_parent(parent: int) -> None:
    """A killed daemon must leave nobody writing into a job folder that its successor will use.

    On Linux the kernel sees to it, even inside a kernel that holds the GIL; elsewhere a thread looks.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was told
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
