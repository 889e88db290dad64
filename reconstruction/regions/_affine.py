"""Lays a brain over a template by an affine map: Gauss–Newton on all contrasts at once, from coarse to fine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.regions._images import Images
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
    step = images.grid.step
    seen = {name: smoothed(image, width, step) for name, image in images.contrasts.items()}
    seen["brain"] = smoothed(images.brain, width, step)
    blurred = template.blurred(width)
    x = x[:, where]
    from_centre = (x - found.centre[:, None]) / RADIUS_MM
    values = {name: image[where] for name, image in seen.items()}
    scales = {name: 1 / max(float(v.var()), 1e-12) for name, v in values.items()}
    for _ in range(STEPS):
        at = blurred.voxels(found(x))
        laid_over = np.stack([_sample(tissue, at) for tissue in blurred.tissues])
        amounts = mixing({n: v for n, v in values.items() if n != "brain"}, laid_over, np.ones(len(x[0]), bool))
        normal, right = np.zeros((12, 12)), np.zeros(12)
        for name, value in values.items():
            image = blurred.brain if name == "brain" else mixed(blurred.tissues, amounts[name])
            residual = value - _sample(image, at)
            slope = np.stack([_sample(g, at) for g in _gradient(image, blurred.affine)])
            J = np.concatenate([(slope[:, None] * from_centre[None]).reshape(9, -1), slope]).astype(np.float64)
            normal += scales[name] * J @ J.T
            right += scales[name] * J @ residual
        change = np.linalg.solve(normal + DAMPING * np.diag(np.diag(normal)), right)
        linear = found.linear + change[:9].reshape(3, 3) / RADIUS_MM
        found = AffineMap(linear, found.shift + change[9:], found.centre)
        if np.linalg.norm(change[:9]) + np.linalg.norm(change[9:]) < STILL_MM:
            break
    return found


def _gradient(image: FloatArray, affine: NDArray[np.float64]) -> FloatArray:
    """(3, x, y, z), 1/mm along right, front, top."""
    return np.tensordot(np.linalg.inv(affine[:3, :3]).T, np.array(np.gradient(image)), 1).astype(np.float32)


def _sample(image: FloatArray, at: NDArray[np.floating]) -> FloatArray:
    return ndimage.map_coordinates(image, at, order=1, output=np.float32)
