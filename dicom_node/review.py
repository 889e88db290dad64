"""Between conversion and physics: what the site knows of the scanner, and whether its phase can be what it says."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_node.convert import Override, Source, scanner_of
from dicom_node.errors import Contradicted
from dicom_node.model import Group
from dicom_node.settings import Scanner
from reconstruction import Acquisition, Evidence, Plausibility, Verdict, check_phase


@dataclass(frozen=True)
class Settings:
    """For one acquisition.  stops: whether a contradiction stops it."""

    override: Override = field(default_factory=Override)
    stops: bool = True

    @property
    def sign_is_known(self) -> bool:
        return self.override.sign != "auto"


@dataclass(frozen=True)
class Judged:
    """objection: why the acquisition needs a person, "" if it does not.  warnings: sentences for the report."""

    found: Plausibility
    objection: str
    warnings: tuple[str, ...]


def settings_of(acquired: Group, scanners: Sequence[Scanner]) -> Settings:
    """What is configured for the scanner of these images: the first table whose names are all theirs."""
    if not scanners:
        return Settings()
    found = scanner_of(acquired)
    for known in scanners:
        theirs = ((known.station_name, found.station_name), (known.serial_number, found.serial_number))
        if all(wanted.strip() in ("", name) for wanted, name in theirs):
            override = Override(known.phase_sign, known.phase_half_turn, known.phase_zero)
            return Settings(override, stops=known.check)
    return Settings()


def judge(acquisition: Acquisition, source: Source, settings: Settings) -> Judged:
    """Lets physics judge the phase."""
    found = check_phase(acquisition)
    return Judged(found, _objection(found, source, settings), _warnings(found))


def check(acquisition: Acquisition, source: Source, settings: Settings) -> Judged:
    """The same, where it may go on.  Raises Contradicted with both hypotheses, unless the site has settled it."""
    judged = judge(acquisition, source, settings)
    if judged.objection:
        raise Contradicted(judged.objection)
    return judged


def _objection(found: Plausibility, source: Source, settings: Settings) -> str:
    """Both hypotheses and what to do in either case; "" where there is nothing to decide."""
    if not settings.stops:
        return ""
    if found.scale is Verdict.CONTRADICTED:
        return (
            f"physics contradicts the scale of the phase: {_against(found.scale_evidence)}. Either it was scaled, "
            f"filtered or put together wrongly on its way: send the images as the scanner wrote them, or configure "
            f"phase_half_turn for this scanner. Or it is right as {source.encoding} images say and the images are "
            "unusual: then configure check = false for this scanner. Then retry"
        )
    if found.sign is Verdict.CONTRADICTED and not settings.sign_is_known:
        as_read, other = ("keep", "flip") if _sign(source.encoding) > 0 else ("flip", "keep")
        return (
            f"physics contradicts the sign of the phase: {_against(found.sign_evidence)}. Either this scanner stores "
            f"it the other way round than {source.encoding} images do, or their orientation is wrong: if the "
            f'former, configure phase_sign = "{other}" for this scanner. Or it is right as read and the anatomy is '
            f'unusual: then configure phase_sign = "{as_read}". Then retry'
        )
    return ""


def as_data(found: Plausibility) -> dict[str, Any]:
    """For JSON."""
    return {
        "verdict": found.verdict.value,
        "sign": found.sign.value,
        "scale": found.scale.value,
        "sign_evidence": [vars(evidence) for evidence in found.sign_evidence],
        "scale_evidence": [vars(evidence) for evidence in found.scale_evidence],
    }


def _warnings(found: Plausibility) -> tuple[str, ...]:
    verdicts = {"sign": found.sign, "scale": found.scale}
    words = {
        Verdict.UNDECIDED: "physics leaves the {} of the phase open; it was taken as the header says",
        Verdict.CONTRADICTED: "physics contradicts the {} of the phase; it was taken as configured for this scanner",
    }
    named = {
        verdict: " and the ".join(name for name, judged in verdicts.items() if judged is verdict) for verdict in words
    }
    return tuple(sentence.format(named[verdict]) for verdict, sentence in words.items() if named[verdict])


def _against(evidence: Sequence[Evidence]) -> str:
    return "; ".join(item.sentence for item in evidence if item.score < 0)


def _sign(encoding: str) -> int:
    """What the reader of an encoding does with stored phase: 1 as stored, −1 its conjugate."""
    sign: int = importlib.import_module(f"dicom_node.convert.{encoding}").SIGN
    return sign
