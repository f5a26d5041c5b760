"""mini-ImageNet: 100 classes of ImageNet with 600 photographs each, at 84x84 pixels.

Vinyals et al. 2016 (arXiv 1606.04080), in the split of 64 training, 16 validation and 20 test classes of Ravi and
Larochelle 2017, Optimization as a Model for Few-Shot Learning; github.com/twitter-research/meta-learning-lstm.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from across.workers.base import Split, TaskDataError, TaskSource
from across.workers.tasks.array_cache import cached_images
from across.workers.tasks.episodes import (
    IMAGENET_STATISTICS,
    FewShotConfig,
    ImageClasses,
    ImageTasks,
    check_classes,
    index_classes,
)
from across.workers.tasks.image_files import ZipMember, decode_zip_members, list_zip, require_files

SPLIT_FILES: Mapping[Split, str] = {
    "train": "ravi_train.csv",
    "validation": "ravi_val.csv",
    "test": "ravi_test.csv",
}

_REMEDY = "`across fetch mini_imagenet` downloads the class lists and says where the images come from"


class MiniImageNetConfig(FewShotConfig):
    """mini-ImageNet from an archive of images and the three class lists in `root`.

    Images that a list names and the archive lacks are left out, so a part of the data set can be used; a class
    without any image is an error.
    """

    type: Literal["mini_imagenet"] = "mini_imagenet"
    root: Path
    """Folder that holds the archive, ravi_train.csv, ravi_val.csv and ravi_test.csv."""
    images_zip: str = "images.zip"
    """The archive's name in `root`; images are found by their file names, in whatever folder of it they lie."""
    image_size: int = Field(default=84, ge=8)

    def build(self) -> TaskSource:
        """Open the data, decoding it if nobody has before; raises `TaskDataError`."""
        root = self.root.expanduser()
        archive = root / self.images_zip
        require_files([archive, *(root / name for name in SPLIT_FILES.values())], remedy=_REMEDY)
        photographs = list_photographs(root, archive)
        spec = self.classification_spec(channels=3, image_size=self.image_size)
        splits = index_classes(photographs)
        check_classes(splits, spec, where=str(archive))
        members = [member for split in splits for images in photographs[split].values() for member in images]
        images = cached_images(
            "mini_imagenet",
            sources=[archive],
            settings={"image_size": self.image_size, "members": [name for _, name in members], "format": 1},
            shape=(len(members), 3, self.image_size, self.image_size),
            decode=lambda: decode_zip_members(
                members, image_size=self.image_size, channels=3, remedy=_REMEDY
            ),
        )
        return ImageTasks(spec, ImageClasses(images, splits), IMAGENET_STATISTICS)


def list_photographs(root: Path, archive: Path) -> dict[Split, dict[str, list[ZipMember]]]:
    """The archive's images of each class of each split."""
    present = {PurePosixPath(name).name: name for name in list_zip(archive, remedy=_REMEDY)}
    photographs: dict[Split, dict[str, list[ZipMember]]] = {}
    problems = []
    for split, name in SPLIT_FILES.items():
        listed = _read_class_list(root / name)
        photographs[split] = {
            label: [(archive, present[image]) for image in images if image in present]
            for label, images in listed.items()
        }
        empty = [label for label, images in photographs[split].items() if not images]
        if empty:
            problems.append(f"{archive}: no image of these classes of {name}: {', '.join(empty)}")
    if problems:
        raise TaskDataError("\n".join(problems))
    return photographs


def _read_class_list(path: Path) -> dict[str, list[str]]:
    """File names by label, in the order of the list."""
    classes: dict[str, list[str]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                classes.setdefault(row["label"], []).append(row["filename"])
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise TaskDataError(f"{path}: not a list with the columns filename and label: {_REMEDY}") from error
    return classes
