"""Omniglot: 1,623 characters of 50 alphabets, each drawn by 20 people.

Lake, Salakhutdinov and Tenenbaum 2015, Human-level concept learning through probabilistic program induction;
github.com/brendenlake/omniglot. Meta-training and validation use the background set's 30 alphabets, meta-test the
evaluation set's 20, so no split shares an alphabet. This differs from the random split of characters that MAML
used (1,200 for training), in which characters of one alphabet lie on both sides.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from across.workers.base import Split, TaskDataError, TaskSource
from across.workers.tasks.array_cache import cached_images
from across.workers.tasks.episodes import (
    UNIT_RANGE,
    FewShotConfig,
    ImageClasses,
    ImageTasks,
    check_classes,
    index_classes,
)
from across.workers.tasks.image_files import ZipMember, decode_zip_members, list_zip, require_files

BACKGROUND_ZIP = "images_background.zip"
EVALUATION_ZIP = "images_evaluation.zip"

VALIDATION_ALPHABETS = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
"""Background alphabets that only the validation split uses (172 characters): those of Vinyals et al. 2016."""

_REMEDY = "`across fetch omniglot` downloads it"


class OmniglotConfig(FewShotConfig):
    """Omniglot from its two official archives in `root`; strokes are 1, paper is 0."""

    type: Literal["omniglot"] = "omniglot"
    root: Path
    """Folder that holds images_background.zip and images_evaluation.zip."""
    image_size: int = Field(default=28, ge=8, le=105)
    rotations: bool = True
    """Whether characters turned by 90, 180 and 270 degrees are further classes of the training split."""

    def build(self) -> TaskSource:
        """Open the data, decoding it if nobody has before; raises `TaskDataError`."""
        root = self.root.expanduser()
        archives = (root / BACKGROUND_ZIP, root / EVALUATION_ZIP)
        require_files(archives, remedy=_REMEDY)
        characters = list_characters(*archives)
        spec = self.classification_spec(channels=1, image_size=self.image_size)
        splits = index_classes(characters)
        rotated: tuple[Split, ...] = ("train",) if self.rotations else ()
        check_classes(splits, spec, where=str(root), rotated_splits=rotated)
        drawings = [member for split in splits for images in characters[split].values() for member in images]
        images = cached_images(
            "omniglot",
            sources=archives,
            settings={"image_size": self.image_size, "members": [name for _, name in drawings], "format": 1},
            shape=(len(drawings), 1, self.image_size, self.image_size),
            decode=lambda: (
                255 - image
                for image in decode_zip_members(
                    drawings, image_size=self.image_size, channels=1, remedy=_REMEDY
                )
            ),
        )
        return ImageTasks(spec, ImageClasses(images, splits, rotated), UNIT_RANGE)


def list_characters(background: Path, evaluation: Path) -> dict[Split, dict[str, list[ZipMember]]]:
    """The drawings of each character, named ALPHABET/characterNN, of each split."""
    known = _characters_of(background)
    missing = sorted(set(VALIDATION_ALPHABETS) - {name.partition("/")[0] for name in known})
    if missing:
        raise TaskDataError(
            f"{background}: alphabets of the validation split are missing: {', '.join(missing)}"
        )
    held_out = {name for name in known if name.partition("/")[0] in VALIDATION_ALPHABETS}
    return {
        "train": {name: drawings for name, drawings in known.items() if name not in held_out},
        "validation": {name: drawings for name, drawings in known.items() if name in held_out},
        "test": _characters_of(evaluation),
    }


def _characters_of(archive: Path) -> dict[str, list[ZipMember]]:
    characters: dict[str, list[ZipMember]] = {}
    for name in list_zip(archive, remedy=_REMEDY):
        parts = name.split("/")
        # Members are images_background/ALPHABET/characterNN/0001_01.png; macOS adds hidden copies to archives.
        if len(parts) == 4 and name.endswith(".png") and not parts[-1].startswith("."):
            characters.setdefault("/".join(parts[1:3]), []).append((archive, name))
    return characters
