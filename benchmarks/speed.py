"""What a reconstruction costs: `qsm-node reconstruct` on a head written as Siemens files, a table by stage out.

    python -m benchmarks.speed [--shape X Y Z] [--echoes N] [--recipe NAME_OR_FILE] [--nifti] [--threads N]

The head is simulated on a coarse grid and interpolated: right in size, structure and noise, not in fine detail, so its
map is not compared with the truth (`benchmarks.accuracy` does that).  It is written once and
kept in `--cache`.  The run is a process of its own, as the node's jobs are, with loops compiled by an earlier one.
"read headers" is what is waited for them; the processes that read them are not in the column of CPU seconds.  A second
run, without the meter, tells the seconds that a user waits: the meter loads before the command does, and does not see
the process end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruction import Acquisition, Geometry
from tests.simulation.head import SimulatedHead, simulate_head
from tests.simulation.scenes import SKYRA_3T
from tests.simulation.siemens import write_siemens

FIELD_OF_VIEW_MM = (224.0, 224.0, 153.6)
COARSE_MM = 2.4
FIRST_ECHO, LAST_ECHO = 4e-3, 40e-3
SNR = 60.0

Shape = tuple[int, int, int]


@dataclass
class Stage:
    """seconds: by the clock.  cpu: of all threads.  transforms: FFTs, each way.  peak: GB resident at most."""

    name: str
    seconds: float
    cpu: float
    transforms: int
    peak: float


def fine_head(shape: Shape, echoes: int) -> SimulatedHead:
    """A head of any size in a few seconds.  Only acquisition, affine and seed are those of the fine grid."""
    times = tuple(float(t) for t in np.linspace(FIRST_ECHO, LAST_ECHO, echoes).round(5))
    voxel_size = tuple(f / n for f, n in zip(FIELD_OF_VIEW_MM, shape, strict=True))
    coarse_shape = tuple(min(n, round(f / COARSE_MM)) for f, n in zip(FIELD_OF_VIEW_MM, shape, strict=True))
    coarse_size = tuple(f / n for f, n in zip(FIELD_OF_VIEW_MM, coarse_shape, strict=True))
    head = simulate_head(
        coarse_shape,  # type: ignore[arg-type]  # three sizes
        coarse_size,  # type: ignore[arg-type]  # as above
        times,
        SKYRA_3T,
        snr=np.inf,
        seed=2,
    )
    given = head.acquisition
    sigma = given.magnitude[0][head.brain_mask].mean() / SNR
    random = np.random.default_rng(2)
    magnitude, phase = np.empty((2, echoes, *shape), np.float32)
    for echo in range(echoes):
        signal = given.magnitude[echo] * np.exp(1j * given.phase[echo])
        real, imaginary = (
            _interpolated(np.ascontiguousarray(part, np.float32), shape)
            + np.float32(sigma) * random.standard_normal(shape, np.float32)
            for part in (signal.real, signal.imag)
        )
        np.hypot(real, imaginary, out=magnitude[echo])
        np.arctan2(imaginary, real, out=phase[echo])
    geometry = Geometry(shape, voxel_size, given.geometry.b0_direction)  # type: ignore[arg-type]  # three of each
    affine = head.affine.copy()
    affine[:3, :3] *= np.array(voxel_size) / np.array(coarse_size)
    return replace(head, acquisition=Acquisition(magnitude, phase, times, SKYRA_3T, geometry), affine=affine)


def _interpolated(volume: NDArray[np.float32], shape: Shape) -> NDArray[np.float32]:
    """Linearly along one axis after the other."""
    for axis, (n, m) in enumerate(zip(volume.shape, shape, strict=True)):
        places = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
        matrix = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(n))).astype(np.float32)
        volume = np.moveaxis(np.tensordot(matrix, volume, (1, axis)), 0, axis)
    return np.ascontiguousarray(volume)


def study(shape: Shape, echoes: int, cache: Path) -> Path:
    """The folder of the head's files, written where it is not there yet."""
    folder = cache / f"{'x'.join(map(str, shape))}x{echoes}"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        write_siemens(fine_head(shape, echoes), part)
        part.rename(folder)
    return folder


def measure(folder: Path, out: Path, recipe: str, nifti: bool, threads: int | None) -> list[Stage]:
    """Runs the reconstruction in a process of its own.  Raises CalledProcessError where it fails."""
    out.mkdir(parents=True, exist_ok=True)
    table = out / "stages.json"
    _run(["benchmarks.speed", "--inside", str(table), str(time.time())], folder, out, recipe, nifti, threads)
    return [Stage(**row) for row in json.loads(table.read_text())]


def whole(folder: Path, out: Path, recipe: str, nifti: bool, threads: int | None) -> float:
    """Seconds from the call to the end of the process, without a meter.  Raises CalledProcessError."""
    began = time.perf_counter()
    _run(["dicom_node"], folder, out, recipe, nifti, threads)
    return time.perf_counter() - began


def _run(module: list[str], folder: Path, out: Path, recipe: str, nifti: bool, threads: int | None) -> None:
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # as `heap.keep`, before which the meter loads NumPy
    if threads is not None:
        environment |= {"NUMBA_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    words = ["reconstruct", str(folder), "--out", str(out / "result"), "--recipe", recipe, *["--nifti"] * nifti]
    command = [sys.executable, "-m", *module, *words]
    subprocess.run(command, check=True, env=environment, stderr=subprocess.PIPE, text=True)


class Meter:
    """Notes what this process has used, whenever a stage begins."""

    def __init__(self, began: float) -> None:
        self.transforms = 0
        self.stages: list[Stage] = []
        self._name, self._clock, self._cpu, self._count = "start-up", began, 0.0, 0

    def begin(self, name: str) -> None:
        """Ends the stage that was under way."""
        now, cpu = time.time(), time.process_time()
        status = dict(row.split(":", 1) for row in Path("/proc/self/status").read_text().splitlines())
        peak = float(status["VmHWM"].split()[0]) / 1e6
        count = self.transforms - self._count
        self.stages.append(Stage(self._name, now - self._clock, cpu - self._cpu, count, peak))
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew (proc(5))
        self._name, self._clock, self._cpu, self._count = name, now, cpu, self.transforms

    def count(self, module: Any, function: str) -> None:
        """Each call of the function of the module is an FFT."""
        transform = getattr(module, function)

        @wraps(transform)
        def counting(*data: Any, **settings: Any) -> Any:
            self.transforms += 1
            return transform(*data, **settings)

        setattr(module, function, counting)

    def before(self, module: Any, function: str, name: str) -> None:
        """A stage begins where the function of the module is called."""
        whole = getattr(module, function)

        @wraps(whole)
        def noting(*data: Any, **settings: Any) -> Any:
            self.begin(name)
            return whole(*data, **settings)

        setattr(module, function, noting)


def inside(table: Path, began: float, words: list[str]) -> int:
    """The command line under a meter; the stages go into `table`."""
    meter = Meter(began)
    from dicom_node import commands, recipes
    from reconstruction import fourier

    for transform in ("forward", "inverse"):
        meter.count(fourier, transform)
    read_recipe = recipes.read_recipe

    def loaded(file: Path) -> Any:
        """The command has imported what it needs, and waits for headers when the recipe is read."""
        from dicom_node import desk, reconstruct

        class Watch(reconstruct.Stopwatch):
            def __call__(self, stage: str) -> None:
                meter.begin(stage)
                super().__call__(stage)

        reconstruct.Stopwatch = Watch  # type: ignore[misc]  # what the benchmark is for
        meter.before(desk, "write", "write")
        meter.before(desk, "write_nifti", "NIfTI")
        recipe = read_recipe(file)
        meter.begin("read headers")
        return recipe

    recipes.read_recipe = loaded
    code = commands.main(words)
    meter.begin("end")
    table.write_text(json.dumps([asdict(stage) for stage in meter.stages]))
    return code


def in_words(stages: list[Stage]) -> str:
    """The table."""
    rows = [f"{'stage':14} {'s':>7} {'CPU s':>7} {'FFTs':>5} {'peak GB':>8}"]
    total = Stage(
        "total",
        sum(s.seconds for s in stages),
        sum(s.cpu for s in stages),
        sum(s.transforms for s in stages),
        max(s.peak for s in stages),
    )
    rows += [f"{s.name:14} {s.seconds:7.2f} {s.cpu:7.2f} {s.transforms:5} {s.peak:8.2f}" for s in (*stages, total)]
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--inside"]:
        return inside(Path(arguments[1]), float(arguments[2]), arguments[3:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 128), metavar="N")
    parser.add_argument("--echoes", type=int, default=5)
    parser.add_argument("--recipe", default="default", help="a name in config/recipes or a TOML file")
    parser.add_argument("--nifti", action="store_true", help="write NIfTI volumes too")
    parser.add_argument("--threads", type=int, help="of loops, transforms and matrix products (default: all cores)")
    parser.add_argument("--cache", type=Path, default=Path("benchmark-output/speed"), help="keeps the heads' files")
    options = parser.parse_args(arguments)
    shape: Shape = (options.shape[0], options.shape[1], options.shape[2])
    folder = study(shape, options.echoes, options.cache)
    size = " × ".join(map(str, shape))
    print(f"qsm-node reconstruct --recipe {options.recipe}: {size} voxels, {options.echoes} echoes", flush=True)
    how = (folder, options.cache / "out", options.recipe, options.nifti, options.threads)
    print(in_words(measure(*how)), flush=True)
    print(f"without the meter, by the clock: {whole(*how):.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
