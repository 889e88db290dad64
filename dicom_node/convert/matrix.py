"""The matrix of an acquisition: component × echo × slice, and what is missing in it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median_low

from dicom_node.convert.stack import POSITION_TOLERANCE, cluster, image_coordinates, missing_between
from dicom_node.model import Component, Frame, Instance

ECHO_TIME_TOLERANCE = 0.05
"""ms.  Headers say 7.001 for 7; echoes are 0.5 ms apart at least."""

Cell = tuple[Component, int, int]
"""Component, echo from 0, slice from 0 along the normal."""
Source = tuple[Instance, Frame]

POLAR = (Component.MAGNITUDE, Component.PHASE)
CARTESIAN = (Component.REAL, Component.IMAGINARY)


@dataclass(frozen=True)
class Grid:
    """The rows of the matrix: where echoes and slices begin (lowest member of each cluster; ms and mm)."""

    echo_starts: tuple[float, ...]
    slice_starts: tuple[float, ...]

    @classmethod
    def of(cls, frames: Iterable[Frame]) -> Grid:
        """Of frames of one orientation."""
        known = list(frames)
        return cls(
            tuple(cluster((frame.echo_time for frame in known), ECHO_TIME_TOLERANCE)),
            tuple(cluster((image_coordinates(frame)[2] for frame in known), POSITION_TOLERANCE)),
        )

    def cell(self, frame: Frame) -> Cell:
        return (
            frame.component,
            bisect_right(self.echo_starts, frame.echo_time) - 1,
            bisect_right(self.slice_starts, image_coordinates(frame)[2]) - 1,
        )


@dataclass(frozen=True)
class Matrix:
    """Which frame fills which cell.  cells: every frame of a cell, one if all is well."""

    grid: Grid
    cells: dict[Cell, list[Source]]

    @classmethod
    def of(cls, instances: Sequence[Instance]) -> Matrix:
        grid = Grid.of(frame for instance in instances for frame in instance.frames)
        cells: dict[Cell, list[Source]] = defaultdict(list)
        for instance in instances:
            for frame in instance.frames:
                cells[grid.cell(frame)].append((instance, frame))
        return cls(grid, dict(cells))

    @cached_property
    def echo_times(self) -> tuple[float, ...]:
        """ms, ascending: for each echo one that really stands in a header."""
        times: dict[int, list[float]] = defaultdict(list)
        for (_, echo, _), sources in self.cells.items():
            times[echo] += [frame.echo_time for _, frame in sources]
        return tuple(median_low(times[echo]) for echo in sorted(times))

    @property
    def slices(self) -> int:
        return len(self.grid.slice_starts)

    @cached_property
    def components(self) -> tuple[Component, Component]:
        """The pair to reconstruct from: the fuller one; real and imaginary part, whose scale is never in doubt, where
        both are as full."""
        cartesian = sum(component in CARTESIAN for component, _, _ in self.cells)
        phase = sum(component is Component.PHASE for component, _, _ in self.cells)
        return CARTESIAN if cartesian and cartesian >= 2 * phase else POLAR

    def source(self, component: Component, echo: int, slice_: int) -> Source:
        return self.cells[component, echo, slice_][0]

    def holes(self) -> tuple[str, ...]:
        """The missing and the ambiguous cells in words."""
        return (*self._absent_components(), *self._absent_slices(), *self._gaps(), *self._twice())

    def _absent_components(self) -> list[str]:
        return [f"{component} missing" for component in self.components if not self._has(component)]

    def _absent_slices(self) -> list[str]:
        holes = []
        for echo, echo_time in enumerate(self.echo_times):
            for component in filter(self._has, self.components):
                absent = [s for s in range(self.slices) if (component, echo, s) not in self.cells]
                if len(absent) == self.slices:
                    holes.append(f"echo {echo + 1} (TE {echo_time:g} ms) {component} missing")
                elif absent:
                    holes.append(f"echo {echo + 1} (TE {echo_time:g} ms) {component}: {_slices(absent)} missing")
        return holes

    def _gaps(self) -> list[str]:
        return [
            f"{count} slice{'s' * (count > 1)} missing between slices {before + 1} and {before + 2}"
            for before, count in missing_between(self.grid.slice_starts)
        ]

    def _twice(self) -> list[str]:
        twice = [cell for cell, sources in self.cells.items() if len(sources) > 1 and cell[0] in self.components]
        if not twice:
            return []
        component, echo, slice_ = min(twice)
        return [
            f"{len(twice)} images are there more than once and cannot be told apart, "
            f"first echo {echo + 1} {component} slice {slice_ + 1}"
        ]

    def _has(self, component: Component) -> bool:
        return any(found is component for found, _, _ in self.cells)


def _slices(absent: list[int]) -> str:
    """ "slices 3–7, 9", counted from 1."""
    runs: list[list[int]] = []
    for slice_ in absent:
        if runs and slice_ == runs[-1][-1] + 1:
            runs[-1].append(slice_)
        else:
            runs.append([slice_])
    words = [str(run[0] + 1) if len(run) == 1 else f"{run[0] + 1}–{run[-1] + 1}" for run in runs]
    return f"slice{'s' * (len(absent) > 1)} {', '.join(words)}"
