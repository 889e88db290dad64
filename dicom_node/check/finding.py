"""Finding: one line of what `qsm-node check` has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["good", "warning", "FAILURE"]


@dataclass(frozen=True)
class Finding:
    """what: was looked at.  found: in words.  remedy: what to do, "" where there is nothing to do."""

    verdict: Verdict
    what: str
    found: str
    remedy: str = ""
