"""Any data set of images: one folder a class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from across.workers.base import Split, TaskDataError, TaskSource
from across.workers.tasks.array_cache import cached_images
from across.workers.tasks.episodes import (
    IMAGENET_STATISTICS,
    SPLITS,
    UNIT_RANGE,
    FewShotConfig,
    ImageClasses,
    ImageTasks,
    check_classes,
    index_classes,
)
from across.workers.tasks.image_files import Channels, decode_image

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
)
"""Files with other suffixes are left out."""

Fraction = Annotated[float, Field(gt=0, lt=1)]


class ImageFolderConfig(FewShotConfig):
    """Images in folders named after their classes.

    Without `split_fractions` the folders lie in `root`/train, `root`/validation and `root`/test. With it they lie
    in `root` itself, and the first classes by name are for training, the next for validation, the last for test.
    Images are cut to their central square. Grey inputs range from 0 to 1; RGB is standardised with ImageNet's
    channel statistics.
    """

    type: Literal["image_folder"] = "image_folder"
    root: Path
    image_size: int = Field(default=84, ge=8)
    channels: Channels = 3
    split_fractions: tuple[Fraction, Fraction, Fraction] | None = None
    """Shares of the classes for train, validation and test; they add up to 1."""

    @model_validator(mode="after")
    def _fractions_add_up(self) -> ImageFolderConfig:
        if self.split_fractions is not None and abs(sum(self.split_fractions) - 1) > 1e-6:
            raise ValueError(f"split_fractions must add up to 1 (got {sum(self.split_fractions):g})")
        return self

    def build(self) -> TaskSource:
        """Open the data, decoding it if nobody has before; raises `TaskDataError`."""
        root = self.root.expanduser()
        files = _split_by_folder(root) if self.split_fractions is None else _cut(root, self.split_fractions)
        spec = self.classification_spec(channels=self.channels, image_size=self.image_size)
        splits = index_classes(files)
        check_classes(splits, spec, where=str(root))
        paths = [path for split in splits for images in files[split].values() for path in images]
        images = cached_images(
            "image_folder",
            sources=paths,
            settings={"image_size": self.image_size, "channels": self.channels, "format": 2},
            shape=(len(paths), self.channels, self.image_size, self.image_size),
            decode=lambda: _decode(paths, image_size=self.image_size, channels=self.channels),
        )
        return ImageTasks(
            spec, ImageClasses(images, splits), UNIT_RANGE if self.channels == 1 else IMAGENET_STATISTICS
        )


def _split_by_folder(root: Path) -> dict[Split, dict[str, list[Path]]]:
    missing = [str(root / split) for split in SPLITS if not (root / split).is_dir()]
    if missing:
        raise TaskDataError(
            f"missing folders: {', '.join(missing)}: make one a split, with a folder a class in each, "
            "or set split_fractions to split the classes of one folder"
        )
    files: dict[Split, dict[str, list[Path]]] = {split: _images_by_class(root / split) for split in SPLITS}
    problems = [
        f"{root}: class {name} is in both {first} and {second}: a class belongs to one split"
        for first, second in combinations(SPLITS, 2)
        for name in sorted(set(files[first]) & set(files[second]))
    ]
    if problems:
        raise TaskDataError("\n".join(problems))
    return files


def _cut(root: Path, fractions: tuple[float, float, float]) -> dict[Split, dict[str, list[Path]]]:
    if not root.is_dir():
        raise TaskDataError(f"missing folder: {root}: it should hold a folder a class")
    classes = list(_images_by_class(root).items())
    first = round(fractions[0] * len(classes))
    second = round((fractions[0] + fractions[1]) * len(classes))
    return {
        "train": dict(classes[:first]),
        "validation": dict(classes[first:second]),
        "test": dict(classes[second:]),
    }


def _images_by_class(folder: Path) -> dict[str, list[Path]]:
    """Image files by class, both in the order of their names; folders without an image are no classes."""
    classes = {}
    for class_folder in sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    ):
        images = sorted(
            path
            for path in class_folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        )
        if images:
            classes[class_folder.name] = images
    return classes


def _decode(paths: Sequence[Path], *, image_size: int, channels: Channels) -> Iterator[NDArray[np.uint8]]:
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise TaskDataError(f"{path}: cannot be read ({error.strerror})") from error
        yield decode_image(content, str(path), image_size=image_size, channels=channels)
