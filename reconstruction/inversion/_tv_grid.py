"""The minimisation of `inversion.tv` on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import array_namespace

from reconstruction import dipole, fourier, gradient
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.fourier import Window, zeros_like
from reconstruction.inversion import _proximal
from reconstruction.nested import VoxelSize
from reconstruction.solvers import Convergence, Values, alternating_directions

RHO_FIELD, RHO_GRADIENT, RHO_OUTSIDE = 0.0125, 0.001, 1.0
"""Penalties of the splittings: of D χ relative to the median weight of the data, of ∇χ relative to that per voxel edge
squared, of χ outside relative to the weight of outside sources.  They steer the speed: smaller ones than usual let the
brain and what lies around it exchange sooner what belongs to the other."""


@dataclass(frozen=True)
class Terms:
    """What the parts of the sum weigh, the same on every grid.

    of_gradient: of |∇χ|, ppm mm.  of_outside: of χ² outside.  bend: misfit in ppm from which it counts linearly.
    edge: of the finest grid's voxels, mm.
    """

    of_gradient: float
    of_outside: float
    bend: float
    edge: float

    @property
    def rho_gradient(self) -> float:
        return RHO_GRADIENT * self.edge**2

    @property
    def rho_outside(self) -> float:
        return RHO_OUTSIDE * self.of_outside


class Grid:
    """χ, its field, and the multipliers u of the three splittings, all in the window."""

    def __init__(
        self,
        window: Window,
        voxel_size: VoxelSize,
        b0_direction: tuple[float, float, float],
        inside: BoolArray,
        data: FloatArray,
        weight: FloatArray,
        edges: FloatArray,
        terms: Terms,
    ) -> None:
        """inside: the brain.  data: field in ppm; weight: of the data, 0 where there are none.  edges: w."""
        xp = array_namespace(data)
        self.window, self.inside = window, inside
        self._voxel_size, self._data, self._weight, self._terms = voxel_size, data, weight, terms
        self._D = dipole.sampled(window.shape, voxel_size, b0_direction, data)
        self._normal = xp.asarray(
            RHO_FIELD * self._D**2
            + terms.rho_gradient * gradient.spectrum(window.shape, voxel_size, data)
            + terms.rho_outside
        )
        self.penalise(edges)
        self._strength_outside = xp.where(inside, xp.zeros_like(data), terms.of_outside)

    def penalise(self, edges: FloatArray) -> None:
        """From now on with other w; the multipliers stay, and what of them is too long is cut at the next step."""
        xp = array_namespace(edges)
        self._threshold = xp.where(self.inside, edges * (self._terms.of_gradient / self._terms.rho_gradient), -1.0)

    def begin(self) -> None:
        """From nothing."""
        xp = array_namespace(self._data)
        self.chi, self._field, self._u_field, self._u_outside = (xp.zeros_like(self._data) for _ in range(4))
        self._u_gradient = zeros_like(self._data, (3, *self.window.shape))

    def begin_with(self, coarse: Grid, spread: Callable[[FloatArray], FloatArray]) -> None:
        """Takes over what a coarser grid has found.  spread: from that grid to this one."""
        xp = array_namespace(self._data)
        self.chi = spread(coarse.chi)
        self._field = spread(coarse._field)
        self._u_field = spread(coarse._u_field)
        self._u_outside = xp.where(self.inside, 0.0, spread(coarse._u_outside))
        self._u_gradient = zeros_like(self._data, (3, *self.window.shape))
        # In the brain u is at most the threshold long, which is another where w is another: its part of that is kept.
        limited = coarse._threshold > 0
        longest = xp.where(limited, coarse._threshold, 1.0)
        allowed = xp.where(self.inside, self._threshold, 0.0)
        for axis in range(3):
            part = xp.where(limited, coarse._u_gradient[axis, ...] / longest, 0.0)
            self._u_gradient[axis, ...] = spread(part) * allowed

    def solve(self, tolerance: float, max_iterations: int) -> Convergence:
        """Goes on from what is there until χ changes by less than `tolerance` in one iteration."""
        xp = array_namespace(self._data)
        shape, terms, voxel_size = self.window.shape, self._terms, self._voxel_size
        handed_field, handed_outside = self._field - self._u_field, self.chi - self._u_outside
        handed_gradient = gradient.forward(self.chi, voxel_size)
        handed_gradient -= self._u_gradient
        right_side = xp.zeros_like(self._data)

        def proximal(values: Values) -> Values:
            x, field = values
            _proximal.fidelity(
                field, self._u_field, handed_field, self._data, self._weight, RHO_FIELD, terms.bend
            )  # fmt: skip
            _proximal.total_variation(x, self._u_gradient, handed_gradient, self._threshold, voxel_size)
            _proximal.ridge(x, self._u_outside, handed_outside, self._strength_outside, terms.rho_outside)
            _proximal.together(
                handed_gradient, handed_outside, terms.rho_gradient, terms.rho_outside, voxel_size, right_side
            )
            return right_side, handed_field

        def project(targets: Values) -> Values:
            of_chi, of_field = (fourier.forward(target, shape) for target in targets)
            _proximal.nearest(of_chi, of_field, self._D, self._normal, RHO_FIELD)
            return fourier.inverse(of_chi, shape), fourier.inverse(of_field, shape)

        (self.chi, self._field), outcome = alternating_directions(
            proximal, project, (self.chi, self._field), self.inside, tolerance=tolerance, max_iterations=max_iterations
        )
        return outcome
