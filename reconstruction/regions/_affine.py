"""Lays a brain over a template by an affine map: Gauss–Newton on all contrasts at once, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.regions._images import Images
from reconstruction.regions._sampling import sampled
from reconstruction.regions._template import Template, mixed, mixing, smoothed

LEVELS = ((12.0, 4), (8.0, 3), (5.0, 3))
"""(Full width in mm of the Gaussian over both images, every how many voxels are looked at)."""

STEPS = 12
"""At most, at each level."""

STILL_MM = 0.1
"""A step that moves the brain's rim less than this ends a level."""

RADIUS_MM = 70.0
"""Of a brain: turns the linear part's steps into mm."""

DAMPING = 1e-3
"""Of the normal matrix's diagonal."""

RIM_MM = 10.0
"""Round the brain: what the template must not have there counts too."""


@dataclass(frozen=True)
class AffineMap:
    """x → linear (x − centre) + centre + shift, from the brain's place to the template's, mm."""

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]
    centre: NDArray[np.float64]

    def __call__(self, places: NDArray[np.floating]) -> NDArray[np.floating]:
        """places: (3, …)."""
        ones = [1] * (places.ndim - 1)
        from_centre = places - self.centre.reshape(3, *ones)
        moved = np.tensordot(self.linear, from_centre, 1) + (self.centre + self.shift).reshape(3, *ones)
        return moved.astype(places.dtype)

    @property
    def scales(self) -> NDArray[np.float64]:
        """The three factors by which the brain is stretched to the template's size."""
        factors: NDArray[np.float64] = np.asarray(np.linalg.svd(self.linear, compute_uv=False), np.float64)
        return factors

    @property
    def turn(self) -> float:
        """Degrees by which the head is turned against the template."""
        u, _, v = np.linalg.svd(self.linear)
        cosine = (np.trace(u @ v) - 1) / 2
        return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def align(images: Images, template: Template) -> AffineMap:
    """The affine map under which the template, in the brain's own contrasts, is most like the brain."""
    x = images.grid.places()
    middle = _middle(template.brain, template.affine)
    centre = _middle(images.brain, images.grid.affine)
    found = AffineMap(np.eye(3), middle - centre, centre)
    near = ndimage.binary_dilation(images.brain > 0.5, iterations=round(RIM_MM / images.grid.step)) & images.seen
    for width, every in LEVELS:
        thinned = np.zeros_like(near)
        thinned[::every, ::every, ::every] = True
        found = _descend(found, images, template, x, near & thinned, width)
    return found


def _middle(brain: FloatArray, affine: NDArray[np.float64]) -> NDArray[np.float64]:
    middle: NDArray[np.float64] = affine[:3, :3] @ np.array(ndimage.center_of_mass(brain)) + affine[:3, 3]
    return middle


def _descend(
    found: AffineMap, images: Images, template: Template, x: FloatArray, where: BoolArray, width: float
) -> AffineMap:
    """Gauss–Newton at one width, over the voxels marked."""
    names = (*images.contrasts, "brain")
    stack = np.stack([*images.contrasts.values(), images.brain])
    values = dict(zip(names, smoothed(stack, width, images.grid.step)[:, where], strict=True))
    scales = {name: 1 / max(float(v.var()), 1e-12) for name, v in values.items()}
    blurred = template.blurred(width)
    x = x[:, where]
    from_centre = (x - found.centre[:, None]) / RADIUS_MM
    everywhere = np.ones(x.shape[1], bool)
    contrasts = {name: values[name] for name in images.contrasts}
    for _ in range(STEPS):
        laid_over, slopes = _with_slopes(blurred, found(x))
        amounts = mixing(contrasts, laid_over[:-1], everywhere)
        normal, right = np.zeros((12, 12)), np.zeros(12)
        for name, value in values.items():
            if name == "brain":
                residual, slope = value - laid_over[-1], slopes[-1]
            else:
                residual = value - mixed(laid_over[:-1], amounts[name])
                slope = np.tensordot(amounts[name], slopes[:-1], 1)
            J = np.concatenate([(slope[:, None] * from_centre[None]).reshape(9, -1), slope]).astype(np.float64)
            normal += scales[name] * J @ J.T
            right += scales[name] * J @ residual
        change = np.linalg.solve(normal + DAMPING * np.diag(np.diag(normal)), right)
        linear = found.linear + change[:9].reshape(3, 3) / RADIUS_MM
        found = AffineMap(linear, found.shift + change[9:], found.centre)
        if np.linalg.norm(change[:9]) + np.linalg.norm(change[9:]) < STILL_MM:
            break
    return found


def _with_slopes(template: Template, places: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The tissues and last the brain at places (3, n) in mm: (tissue, n); and their slopes (tissue, 3, n), 1/mm.

    The difference of what lies a voxel to either side is the central difference, interpolated.
    """
    stack = np.concatenate([template.tissues, template.brain[None]])
    steps = np.concatenate([np.zeros((3, 1)), np.eye(3), -np.eye(3)], axis=1).astype(np.float32)
    at = template.voxels(places)[:, None, None, :] + steps[:, :, None, None]
    here, *around = np.moveaxis(sampled(stack, at)[:, :, 0], 1, 0)
    slopes = (np.stack(around[:3], 1) - np.stack(around[3:], 1)) / 2
    to_mm = np.linalg.inv(template.affine[:3, :3]).T.astype(np.float32)
    return here, np.einsum("ij,tjn->tin", to_mm, slopes)
