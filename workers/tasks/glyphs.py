"""Drawn characters made on the fly: few-shot tasks without any data set.

A class is a character of two to four strokes (cubic Bezier curves), made from
`default_rng((class_seed, split, class id))`: the splits share no class by construction, and there are 2^62 of them
in each. A drawing of it moves strokes and control points a little, warps the whole by an affine map, and picks a
pen width.

Shapes: N classes, D drawings, S strokes, P points on a stroke.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from across.workers.base import Split, TaskBatch, TaskSource, TaskSpec
from across.workers.tasks.episodes import SPLITS, UNIT_RANGE, FewShotConfig, make_batch

NUM_CLASSES = 2**62
MAX_STROKES = 4
STROKE_CHANCES = np.array([1.0, 1.0, 0.7, 0.35])
"""Chance that a character has its first, second, ... stroke; once one is absent, so are the next."""

PEN_WIDTHS = (0.6, 0.66, 0.72, 0.78, 0.84, 0.9)
"""Standard deviations of the ink, in pixels of a 28x28 image."""

_GENES_PER_STROKE = 10
_SUBPIXELS = 8

Float64Array = NDArray[np.float64]


class GlyphsConfig(FewShotConfig):
    """Procedural characters; strokes are 1, paper is 0."""

    type: Literal["glyphs"] = "glyphs"
    image_size: int = Field(default=28, ge=12, le=256)
    jitter: float = Field(default=1.0, ge=0.0, le=3.0)
    """How much drawings of one character differ: 0 makes them equal but for the pen, 1 like handwriting."""
    class_seed: int = Field(default=0, ge=0)
    """Seed of all characters: another one is another set of classes."""

    def build(self) -> TaskSource:
        """The source; it needs no files."""
        spec = self.classification_spec(channels=1, image_size=self.image_size)
        return GlyphTasks(spec, self.class_seed, self.jitter, Pen(self.image_size))


@dataclass(frozen=True)
class GlyphTasks:
    """The task source over procedural characters."""

    spec: TaskSpec
    class_seed: int
    jitter: float
    pen: Pen

    def sample(self, split: Split, seeds: Sequence[int]) -> TaskBatch:
        """See `TaskSource`; raises ValueError for a negative seed."""
        spec = self.spec
        num_drawings = spec.num_shots + spec.num_queries
        images = np.empty((len(seeds), spec.num_ways, num_drawings, *spec.input_shape), dtype=np.uint8)
        for task, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            ids = rng.choice(NUM_CLASSES, spec.num_ways, replace=False)
            strokes, present = make_characters(self.class_seed, split, ids)
            drawings = vary(strokes, num_drawings, self.jitter, rng)
            widths = rng.integers(len(PEN_WIDTHS), size=(spec.num_ways, num_drawings))
            # Class by class: its arrays fit the processor's cache, and absent strokes cost nothing.
            for way in range(spec.num_ways):
                images[task, way, :, 0] = self.pen.draw(drawings[way][:, present[way]], widths[way])
        return make_batch(spec, images, UNIT_RANGE)


def make_characters(
    class_seed: int, split: Split, ids: NDArray[np.int64]
) -> tuple[Float64Array, NDArray[np.bool_]]:
    """Control points (N, S, 4, 2) of the characters `ids`, within ±0.75, and which strokes they have."""
    genes = np.stack(
        [
            np.random.default_rng((class_seed, SPLITS.index(split), int(number))).random(
                (MAX_STROKES, _GENES_PER_STROKE)
            )
            for number in ids
        ]
    )
    present = np.logical_and.accumulate(genes[..., 0] < STROKE_CHANCES, axis=-1)
    strokes = _connect(_make_strokes(genes), genes)
    low = np.where(present[..., None, None], strokes, np.inf).min(axis=(1, 2))
    high = np.where(present[..., None, None], strokes, -np.inf).max(axis=(1, 2))
    extent = np.maximum((high - low).max(axis=-1), 1e-6)
    centre = (low + high) / 2
    centred: Float64Array = strokes - centre[:, None, None]
    return 1.5 * centred / extent[:, None, None, None], present


def _make_strokes(genes: Float64Array) -> Float64Array:
    """Lines, bows and waves: control points (N, S, 4, 2)."""
    angle, length = 2 * np.pi * genes[..., 1], 0.6 + 1.1 * genes[..., 2]
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    normal = np.stack([-direction[..., 1], direction[..., 0]], axis=-1)
    start = 1.2 * genes[..., 3:5] - 0.6 - direction * length[..., None] / 2
    kind = genes[..., 5]
    first = np.where(kind < 0.35, 0.0, 2.2 * genes[..., 6] - 1.1)
    second = np.where(kind < 0.35, 0.0, np.where(kind < 0.75, first, 2.2 * genes[..., 7] - 1.1))
    along = np.array([0.0, 1 / 3, 2 / 3, 1.0])
    across = np.stack([np.zeros_like(first), first, second, np.zeros_like(first)], axis=-1)
    offsets = along[:, None] * direction[..., None, :] + across[..., None] * normal[..., None, :]
    strokes: Float64Array = start[..., None, :] + length[..., None, None] * offsets
    return strokes


def _connect(strokes: Float64Array, genes: Float64Array) -> Float64Array:
    """Most strokes after the first start on the one before: at its end, middle or beginning."""
    weights = _bezier_weights(np.array([0.0, 0.5, 1.0]))
    connected: Float64Array = strokes.copy()
    for stroke in range(1, MAX_STROKES):
        joints = weights @ connected[:, stroke - 1]
        joint = joints[np.arange(len(strokes)), (3 * genes[:, stroke, 8]).astype(int)]
        shift = np.where(genes[:, stroke, 9, None] < 0.65, joint - connected[:, stroke, 0], 0.0)
        connected[:, stroke] += shift[:, None]
    return connected


def vary(strokes: Float64Array, num: int, jitter: float, rng: np.random.Generator) -> Float64Array:
    """Control points (N, D, S, 4, 2) of `num` drawings of each character."""
    num_classes = len(strokes)
    moved = np.repeat(strokes[:, None], num, axis=1)
    moved += jitter * 0.09 * rng.standard_normal((num_classes, num, MAX_STROKES, 1, 2))
    moved += jitter * 0.07 * rng.standard_normal(moved.shape)
    warp = np.clip(rng.standard_normal((num_classes, num, 6)), -2.5, 2.5) * jitter
    angle, shear = 0.2 * warp[..., 0], 0.18 * warp[..., 1]
    cosine, sine = np.cos(angle), np.sin(angle)
    width, height = np.exp(0.12 * warp[..., 2]), np.exp(0.12 * warp[..., 3])
    # What the unit vectors become: scaled, sheared, then turned.
    unit_x = np.stack([cosine, sine], axis=-1) * width[..., None]
    unit_y = np.stack([shear * cosine - sine, shear * sine + cosine], axis=-1) * height[..., None]
    shift = 0.06 * warp[..., 4:6]
    x, y = moved[..., 0, None], moved[..., 1, None]
    warped: Float64Array = (
        x * unit_x[:, :, None, None] + y * unit_y[:, :, None, None] + shift[:, :, None, None]
    )
    return warped


@dataclass(frozen=True)
class Pen:
    """Draws strokes with soft edges: ink spreads around points of the curves as a Gaussian, then is sharpened."""

    image_size: int

    @cached_property
    def _curve(self) -> NDArray[np.float32]:
        """Weights (4, P) of the control points: about a point a pixel, which the spread joins without ripples."""
        positions = np.linspace(0, 1, 3 * self.image_size // 4)
        return np.asarray(_bezier_weights(positions).T, dtype=np.float32)

    @property
    def _margin(self) -> int:
        """How far outside the image a point is when nothing of its ink is seen, in pixels."""
        return self.image_size // 7 + 1

    @cached_property
    def _tips(self) -> NDArray[np.float32]:
        """Ink (pen widths, positions, image_size) at each pixel of a side, by the point's position on that side.

        A table, because looking a row up is several times faster than its exponentials. The product over both
        sides is such that the peak over a straight line is 1.
        """
        sigma = (np.array(PEN_WIDTHS) * self.image_size / 28)[:, None, None]
        last = self.image_size - 1 + self._margin
        positions = np.linspace(-self._margin, last, _SUBPIXELS * (last + self._margin) + 1)
        distance = np.arange(self.image_size) - positions[:, None]
        # Products of two values below e^-20 would be denormal numbers, which processors are slow at.
        spread = np.exp(np.maximum(-((distance / sigma) ** 2) / 2, -20))
        return np.asarray(spread / np.sqrt(np.sqrt(2 * np.pi) * sigma), dtype=np.float32)

    def draw(self, strokes: Float64Array, widths: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images (D, H, W) of strokes (D, S, 4, 2) with the pens `PEN_WIDTHS[widths]`, (D,)."""
        control = np.moveaxis(strokes, -1, 0).astype(np.float32)
        points = ((control + 1) * np.float32((self.image_size - 1) / 2)) @ self._curve
        half_steps = np.sqrt((np.diff(points) ** 2).sum(axis=0)) / 2
        ink = np.zeros_like(points[0])
        ink[..., 1:] += half_steps
        ink[..., :-1] += half_steps
        num_positions = self._tips.shape[1]
        rows = np.rint((points + self._margin) * _SUBPIXELS).clip(0, num_positions - 1).astype(np.int64)
        rows = (rows + num_positions * widths[:, None, None]).reshape(2, len(strokes), -1)
        across, down = self._tips.reshape(-1, self.image_size)[rows]
        image = down.swapaxes(-1, -2) @ (across * ink.reshape(len(strokes), -1, 1))
        # 8 bits as from a scanner: they also hide nearly all last-bit differences between processors.
        return np.asarray(np.rint((255 * (1.7 * image - 0.35)).clip(0, 255)), dtype=np.uint8)


def _bezier_weights(positions: Float64Array) -> Float64Array:
    """Bernstein polynomials of degree 3: weights (P, 4) of the control points at `positions` from 0 to 1."""
    t = positions[:, None]
    return np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
