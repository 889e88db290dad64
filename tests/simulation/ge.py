"""The simulated head as GE writes it: classic MR Image Storage, all in one series, the component in a private element.

How sure each fact is: [M] measured on real files, [S] in a standard or in another reader's source, [?] not verified.

- ImageType says OTHER of every component; (0043,xx2F) of GEMS_PARM_01 says 0, 1, 2, 3 for magnitude, phase, real and
  imaginary part [S: dcm2niix, MEDI, QSMxT].
- InstanceNumber counts the components of an echo, then the echoes of a slice, then the slices [S: MEDI].
- The sign is the conjugate of Siemens' [S: MEDI, QSMxT].
- Chopping: every second slice of the complex image carries −1 [S: MEDI, SEPIA #92, ROMEO #22].
- Pixels are signed 16 bit without Rescale [S: dcm_qa_nih]; real and imaginary part share the magnitude's scale [?].
- Phase runs over ±3142 or ±4096 [?].
- Slice interpolation (ZIP): more slices than (0021,xx4F) of GEMS_RELA_01 says were located [S: dcm2niix]; the slice
  thickness stays that of the acquired slices [?].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from reconstruction.acquisition import FloatArray
from tests.simulation import header
from tests.simulation.head import SimulatedHead

SERIES = 70
NUMBERS = {"magnitude": 0, "phase": 1, "real": 2, "imaginary": 3}
POLAR, CARTESIAN, ALL = ("magnitude", "phase"), ("real", "imaginary"), tuple(NUMBERS)

MILLIRADIAN, OVER_4096 = 1e-3, np.pi / 4096
"""Radian in one stored unit of phase: ±3142 and ±4096 are ±π."""


def write_ge(
    head: SimulatedHead,
    folder: Path,
    *,
    seed: int | None = None,
    components: Sequence[str] = ALL,
    chopped: bool = False,
    radian: float = MILLIRADIAN,
    crowded: bool = False,
    interpolated: bool = False,
) -> list[Path]:
    """Writes slices × echoes × components files; returns them by InstanceNumber.

    components: keys of NUMBERS.  chopped: every second slice carries −1.  radian: in one stored unit of phase.
    crowded: another application took block 10 of group 0043 first, so that GE's elements stand in block 11.
    interpolated: twice as many slices as were acquired, by zero filling.
    """
    study = header.Study(head.seed if seed is None else seed)
    acquired = head.acquisition.geometry.shape[2]
    scale = header.magnitude_scale(head)
    if interpolated:
        head = twice_the_slices(head)
    stored = _stored(head, scale, chopped, radian)
    slices, echoes = head.acquisition.geometry.shape[2], len(head.acquisition.echo_times)
    paths = []
    for k in range(slices):
        for echo in range(echoes):
            for component in components:
                number = len(paths) + 1
                d = study.dataset(SERIES, number)
                _describe(d, head, echo)
                header.add_plane(d, head, k)
                d.SliceThickness = header.decimal(head.acquisition.geometry.voxel_size[2] * slices / acquired)
                d.ImagesInAcquisition = slices * echoes * len(components)
                d.StackID, d.InStackPositionNumber = "1", k + 1
                _add_private(d, NUMBERS[component], echoes, acquired, crowded)
                _add_pixels(d, stored[component][echo, :, :, k])
                paths.append(header.save(d, folder / f"i{number:06d}.MRDC.{number}"))
    return paths


def twice_the_slices(head: SimulatedHead) -> SimulatedHead:
    """The acquisition zero-filled along its slices to twice their number; the truth beside it stays as it is."""
    acquisition = head.acquisition
    signal = acquisition.magnitude * np.exp(1j * acquisition.phase)
    slices = signal.shape[3]
    spectrum = scipy.fft.fftshift(scipy.fft.fft(signal, axis=3), axes=3)
    before = slices - slices // 2
    padded = np.pad(spectrum, ((0, 0), (0, 0), (0, 0), (before, slices - before)))
    signal = 2 * scipy.fft.ifft(scipy.fft.ifftshift(padded, axes=3), axis=3)
    affine = head.affine.copy()
    affine[:, 2] /= 2
    x, y, z = acquisition.geometry.voxel_size
    geometry = replace(acquisition.geometry, shape=signal.shape[1:], voxel_size=(x, y, z / 2), affine=None)
    finer = replace(
        acquisition,
        magnitude=np.abs(signal).astype(np.float32),
        phase=np.angle(signal).astype(np.float32),
        geometry=geometry,
    )
    return replace(head, acquisition=finer, affine=affine)


def _stored(head: SimulatedHead, scale: float, chopped: bool, radian: float) -> dict[str, NDArray[np.int16]]:
    acquisition = head.acquisition
    signal = scale * acquisition.magnitude * np.exp(-1j * acquisition.phase)
    if chopped:
        signal[..., 1::2] *= -1
    values: dict[str, FloatArray] = {
        "magnitude": np.abs(signal),
        "phase": np.angle(signal) / radian,
        "real": signal.real,
        "imaginary": signal.imag,
    }
    return {name: np.round(value).astype(np.int16) for name, value in values.items()}


def _describe(d: Dataset, head: SimulatedHead, echo: int) -> None:
    """Equipment, series and MR image modules as DV26 fills them."""
    header.describe_gradient_echo(d, head, echo)
    d.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    d.Manufacturer = "GE MEDICAL SYSTEMS"
    d.ManufacturerModelName = "DISCOVERY MR750"
    d.SoftwareVersions = ["27", "LX", "MR Software release:DV26.0_R01_1725.a"]
    d.SeriesDescription = "Ax QSM"
    d.ProtocolName = "QSM"
    d.SequenceVariant = "NONE"
    d.ScanOptions = ["FAST_GEMS", "EDR_GEMS", "FILTERED_GEMS"]
    d.ReceiveCoilName = "32Ch Head"
    d.WindowCenter, d.WindowWidth = "1000", "2000"


def _add_private(d: Dataset, number: int, echoes: int, located: int, crowded: bool) -> None:
    acquisition = d.private_block(0x0019, "GEMS_ACQU_01", create=True)
    acquisition.add_new(0x7E, "SS", echoes)
    acquisition.add_new(0x9C, "LO", "EFGRE3D")
    acquisition.add_new(0x9E, "LO", "EFGRE3D")
    d.private_block(0x0021, "GEMS_RELA_01", create=True).add_new(0x4F, "SS", located)
    if crowded:
        d.private_block(0x0043, "ANOTHER APPLICATION", create=True).add_new(0x2F, "SS", 0)
    d.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", number)


def _add_pixels(d: Dataset, stored: NDArray[np.int16]) -> None:
    header.add_pixels(d, stored, bits=16)
    d.SmallestImagePixelValue, d.LargestImagePixelValue = int(stored.min()), int(stored.max())
