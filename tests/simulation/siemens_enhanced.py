"""The simulated head as Siemens XA writes it: one Enhanced MR object of magnitude, one of phase, each in its series."""

from __future__ import annotations

from pathlib import Path

from tests.simulation import enhanced, header
from tests.simulation.enhanced import EnhancedFrame
from tests.simulation.head import SimulatedHead
from tests.simulation.siemens import MAGNITUDE_SERIES, PHASE_INTERCEPT, PHASE_SERIES, PHASE_SLOPE, RADIAN


def write_siemens_enhanced(head: SimulatedHead, folder: Path, *, seed: int | None = None) -> list[Path]:
    """Writes two files; frames run over the slices of the first echo, then of the next."""
    study = header.Study(head.seed if seed is None else seed)
    echoes, slices = len(head.acquisition.echo_times), head.acquisition.geometry.shape[2]
    magnitude = header.stored_magnitude(head)
    phase = header.stored_phase(head.acquisition.phase, PHASE_SLOPE, PHASE_INTERCEPT, RADIAN)
    paths = []
    for letter, component, stored, series, rescale, window in (
        ("M", "MAGNITUDE", magnitude, MAGNITUDE_SERIES, (1, 0), (600, 1400)),
        ("P", "PHASE", phase, PHASE_SERIES, (PHASE_SLOPE, PHASE_INTERCEPT), (0, 8192)),
    ):
        image_type = ("ORIGINAL", "PRIMARY", letter, "NONE")
        d = enhanced.enhanced_mr(study, head, series, image_type, component)
        d.Manufacturer = "Siemens Healthineers"
        d.ManufacturerModelName = "MAGNETOM Prisma"
        d.SoftwareVersions = "syngo MR XA30"
        d.SeriesDescription = d.ProtocolName = "gre_qsm"
        d.PulseSequenceName = f"*fl3d{echoes}r"
        enhanced.add_dimensions(
            d,
            study,
            (
                enhanced.pointer(enhanced.STACK_ID, enhanced.FRAME_CONTENT, "Stack ID"),
                enhanced.pointer(enhanced.IN_STACK_POSITION, enhanced.FRAME_CONTENT, "In-Stack Position Number"),
                enhanced.pointer(enhanced.EFFECTIVE_ECHO_TIME, enhanced.MR_ECHO, "Effective Echo Time"),
            ),
        )
        d.PerFrameFunctionalGroupsSequence = [
            enhanced.per_frame(
                d,
                head,
                EnhancedFrame(k, echo, component, image_type, (1, k + 1, echo + 1), (*rescale, "US"), window),
            )
            for echo in range(echoes)
            for k in range(slices)
        ]
        frames = stored.transpose(0, 3, 1, 2).reshape(echoes * slices, *stored.shape[1:3])
        header.add_pixels(d, frames)
        paths.append(header.save(d, folder / f"{series:04d}" / "IM00001.dcm"))
    return paths
