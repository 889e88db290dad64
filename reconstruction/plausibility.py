"""Does physics agree with the header?  Sign and scale of the phase, checked on the images themselves."""

from __future__ import annotations

from dataclasses import dataclass

from reconstruction.acquisition import Acquisition
from reconstruction.evidence import Evidence, Verdict, verdict_on
from reconstruction.phase_scale import evidence_of_scale
from reconstruction.phase_sign import evidence_of_sign
from reconstruction.preview import preview


@dataclass(frozen=True)
class Plausibility:
    """verdict: contradicted if sign or scale is, confirmed if both are.  sentences: what speaks for it, in words."""

    verdict: Verdict
    sign: Verdict
    scale: Verdict
    sign_evidence: tuple[Evidence, ...]
    scale_evidence: tuple[Evidence, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """Every finding where the verdict is open, else those that speak for it."""
        direction = {Verdict.CONFIRMED: 1, Verdict.CONTRADICTED: -1}.get(self.verdict, 0)
        evidence = (*self.sign_evidence, *self.scale_evidence)
        return tuple(e.sentence for e in evidence if direction == 0 or direction * e.score > 0)


def check_phase(acquisition: Acquisition) -> Plausibility:
    """Judges the sign and the scale of an acquisition's phase.  Takes about a second for a whole head."""
    coarse = preview(acquisition)
    sign_evidence, scale_evidence = evidence_of_sign(coarse), evidence_of_scale(acquisition, coarse)
    sign, scale = verdict_on(sign_evidence), verdict_on(scale_evidence)
    if Verdict.CONTRADICTED in (sign, scale):
        verdict = Verdict.CONTRADICTED
    else:
        verdict = Verdict.CONFIRMED if sign is scale is Verdict.CONFIRMED else Verdict.UNDECIDED
    return Plausibility(verdict, sign, scale, sign_evidence, scale_evidence)
