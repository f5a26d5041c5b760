"""Few-shot classification tasks (episodes) from classes of images.

A task of N ways, K shots and Q queries draws N classes and K + Q different images of each: K make the support set,
Q the query set (Vinyals et al. 2016, Matching Networks, arXiv 1606.04080). Labels are the order of the draw. Both
sets are ordered class by class.

Shapes: T tasks, N ways, M = shots + queries images a class, (C, H, W) one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from across.search_spaces.base import Config
from across.workers.base import Split, TaskBatch, TaskDataError, TaskSpec

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Standardization: TypeAlias = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, on the scale from 0 to 1."""

UNIT_RANGE: Standardization = ((0.0,), (1.0,))
"""Inputs from 0 to 1: drawings."""

IMAGENET_STATISTICS: Standardization = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Channel statistics of ImageNet's training images, as image classifiers commonly use them: photographs."""


class FewShotConfig(Config):
    """The settings that all sources of few-shot tasks share."""

    num_ways: int = Field(default=5, ge=2)
    num_shots: int = Field(default=1, ge=1)
    num_queries: int = Field(default=15, ge=1)

    def classification_spec(self, *, channels: int, image_size: int) -> TaskSpec:
        """The spec of square images with these settings."""
        return TaskSpec(
            input_shape=(channels, image_size, image_size),
            num_ways=self.num_ways,
            num_shots=self.num_shots,
            num_queries=self.num_queries,
            objective="classification",
        )


@dataclass(frozen=True)
class ImageClass:
    """One class: a run of consecutive images."""

    name: str
    first: int
    num_images: int


@dataclass(frozen=True)
class ImageClasses:
    """All images of a data set and the classes of each split."""

    images: NDArray[np.uint8]
    """Shape (images, C, H, W), ordered by split and class."""
    splits: Mapping[Split, tuple[ImageClass, ...]]
    rotated_splits: tuple[Split, ...] = ()
    """Splits in which each class turned by 90, 180 and 270 degrees counts as three more classes."""

    def num_turns(self, split: Split) -> int:
        """Classes that one class of images makes: 4 where rotations count, else 1."""
        return 4 if split in self.rotated_splits else 1


@dataclass(frozen=True)
class ImageTasks:
    """The task source over a data set of images."""

    spec: TaskSpec
    data: ImageClasses
    standardization: Standardization

    def sample(self, split: Split, seeds: Sequence[int]) -> TaskBatch:
        """See `TaskSource`; raises ValueError for a negative seed."""
        numbers, turns = self._draw(split, seeds)
        images = self.data.images[numbers]
        for turn in range(1, self.data.num_turns(split)):
            images[turns == turn] = np.rot90(images[turns == turn], turn, axes=(-2, -1))
        return make_batch(self.spec, images, self.standardization)

    def _draw(self, split: Split, seeds: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Image numbers (T, N, M) and quarter turns (T, N) of the tasks."""
        spec, classes, num_turns = self.spec, self.data.splits[split], self.data.num_turns(split)
        num_images = spec.num_shots + spec.num_queries
        numbers = np.empty((len(seeds), spec.num_ways, num_images), dtype=np.int64)
        turns = np.empty((len(seeds), spec.num_ways), dtype=np.int64)
        for task, seed in enumerate(seeds):
            rng = np.random.default_rng(seed)
            drawn = rng.choice(len(classes) * num_turns, spec.num_ways, replace=False)
            turns[task] = drawn % num_turns
            for way, index in enumerate(drawn // num_turns):
                chosen = rng.choice(classes[index].num_images, num_images, replace=False)
                numbers[task, way] = classes[index].first + chosen
        return numbers, turns


def make_batch(spec: TaskSpec, images: NDArray[np.uint8], standardization: Standardization) -> TaskBatch:
    """Tasks of `images` (T, N, M, C, H, W): the first shots of each class are the support set."""
    num_tasks = len(images)
    ways = torch.arange(spec.num_ways)
    return TaskBatch(
        spec=spec,
        support_inputs=_inputs(spec, images[:, :, : spec.num_shots], standardization),
        support_targets=ways.repeat_interleave(spec.num_shots).repeat(num_tasks, 1),
        query_inputs=_inputs(spec, images[:, :, spec.num_shots :], standardization),
        query_targets=ways.repeat_interleave(spec.num_queries).repeat(num_tasks, 1),
    )


def _inputs(spec: TaskSpec, images: NDArray[np.uint8], standardization: Standardization) -> torch.Tensor:
    """Pixels on the scale from 0 to 1, minus the channel's mean, over its deviation: (T, B, C, H, W)."""
    mean, deviation = (np.asarray(values, dtype=np.float32)[:, None, None] for values in standardization)
    num_tasks, num_ways, num_images = images.shape[:3]
    pixels = images.reshape(num_tasks, num_ways * num_images, *spec.input_shape).astype(np.float32)
    if standardization != UNIT_RANGE:
        pixels -= 255 * mean
    pixels /= 255 * deviation
    return torch.from_numpy(pixels)


def index_classes(
    images_of: Mapping[Split, Mapping[str, Sequence[object]]],
) -> dict[Split, tuple[ImageClass, ...]]:
    """The classes of images that are stored one after the other in the order of `images_of`."""
    splits: dict[Split, tuple[ImageClass, ...]] = {}
    first = 0
    for split in SPLITS:
        classes = []
        for name, images in images_of[split].items():
            classes.append(ImageClass(name, first, len(images)))
            first += len(images)
        splits[split] = tuple(classes)
    return splits


def check_classes(
    splits: Mapping[Split, tuple[ImageClass, ...]],
    spec: TaskSpec,
    *,
    where: str,
    rotated_splits: tuple[Split, ...] = (),
) -> None:
    """Raise `TaskDataError` with everything that is too small for tasks of `spec`."""
    problems = []
    needed = spec.num_shots + spec.num_queries
    for split, classes in splits.items():
        num_classes = len(classes) * (4 if split in rotated_splits else 1)
        if num_classes < spec.num_ways:
            problems.append(
                f"split {split}: num_ways = {spec.num_ways} needs as many classes (has {num_classes})"
            )
        small = [item for item in classes if item.num_images < needed]
        if small:
            listed = ", ".join(f"{item.name} ({item.num_images})" for item in small[:5])
            more = f" and {len(small) - 5} more" if len(small) > 5 else ""
            problems.append(
                f"split {split}: num_shots + num_queries = {needed} images a class are needed; "
                f"too few in {listed}{more}"
            )
    if problems:
        raise TaskDataError("\n".join(f"{where}: {problem}" for problem in problems))
