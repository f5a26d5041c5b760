"""What task sources say about data that is missing, broken or too small, and about wrong settings."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from across.workers.base import TaskDataError
from across.workers.tasks import TaskSourceConfig
from across.workers.tasks.image_folder import ImageFolderConfig
from across.workers.tasks.mini_imagenet import MiniImageNetConfig
from across.workers.tasks.omniglot import VALIDATION_ALPHABETS, OmniglotConfig

CONFIG = TypeAdapter[TaskSourceConfig](TaskSourceConfig)


def drawing(shade: int = 0) -> bytes:
    content = io.BytesIO()
    Image.new("L", (20, 20), color=shade).save(content, "PNG")
    return content.getvalue()


def write_zip(path: Path, names: Iterable[str], content: bytes | None = None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, drawing() if content is None else content)


def members(top: str, alphabets: Iterable[str], *, num_characters: int, num_drawings: int) -> list[str]:
    return [
        f"{top}/{alphabet}/character{character:02}/{number:04}.png"
        for alphabet in alphabets
        for character in range(1, num_characters + 1)
        for number in range(num_drawings)
    ]


def make_omniglot(root: Path, *, num_characters: int = 2, num_drawings: int = 4) -> OmniglotConfig:
    """Tiny archives in the official layout, and a config that they are just large enough for."""
    sizes = {"num_characters": num_characters, "num_drawings": num_drawings}
    background = members("images_background", [*VALIDATION_ALPHABETS, "Greek"], **sizes)
    write_zip(root / "images_background.zip", background)
    write_zip(root / "images_evaluation.zip", members("images_evaluation", ["Angelic"], **sizes))
    return OmniglotConfig(root=root, num_ways=2, num_shots=1, num_queries=3)


def make_mini_imagenet(root: Path) -> MiniImageNetConfig:
    """Three splits of two classes with two images each."""
    names = []
    for split, labels in {"train": "ab", "val": "cd", "test": "ef"}.items():
        rows = [(f"{label}{number}.jpg", label) for label in labels for number in range(2)]
        names += [f"anywhere/{name}" for name, _ in rows]
        lines = ["filename,label", *(",".join(row) for row in rows)]
        (root / f"ravi_{split}.csv").write_text("\n".join(lines) + "\n")
    write_zip(root / "images.zip", names)
    return MiniImageNetConfig(root=root, num_ways=2, num_shots=1, num_queries=1)


def make_folders(root: Path) -> ImageFolderConfig:
    for split, labels in {"train": "ab", "validation": "cd", "test": "ef"}.items():
        for label in labels:
            (root / split / label).mkdir(parents=True)
            for number in range(2):
                (root / split / label / f"{number}.png").write_bytes(drawing())
    return ImageFolderConfig(root=root, num_ways=2, num_shots=1, num_queries=1)


def test_data_that_is_just_large_enough_is_used(tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("omniglot", "mini_imagenet", "folders")]
    for root in roots:
        root.mkdir()
    for config in (make_omniglot(roots[0]), make_mini_imagenet(roots[1]), make_folders(roots[2])):
        assert config.build().sample("test", [0]).num_tasks == 1


def test_all_missing_files_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match="across fetch omniglot") as error:
        OmniglotConfig(root=tmp_path).build()
    assert str(tmp_path / "images_background.zip") in str(error.value)
    assert str(tmp_path / "images_evaluation.zip") in str(error.value)
    with pytest.raises(TaskDataError, match=r"ravi_train.csv.*ravi_val.csv.*across fetch mini_imagenet"):
        MiniImageNetConfig(root=tmp_path).build()
    with pytest.raises(TaskDataError, match=r"missing folders: .*train, .*validation, .*test"):
        ImageFolderConfig(root=tmp_path).build()
    with pytest.raises(TaskDataError, match=r"missing folder: .*absent"):
        ImageFolderConfig(root=tmp_path / "absent", split_fractions=(0.5, 0.25, 0.25)).build()


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    config = make_omniglot(tmp_path)
    path = tmp_path / "images_evaluation.zip"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(
        TaskDataError, match=r"images_evaluation.zip: not a complete zip archive.*across fetch"
    ):
        config.build()


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    config = make_omniglot(tmp_path)
    path = tmp_path / "images_evaluation.zip"
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(TaskDataError, match=r"images_evaluation.zip: .*character01/0000.png is damaged"):
        config.build()


@pytest.mark.parametrize("content", [b"no image", drawing()[:40], b""])
def test_a_member_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    config = make_omniglot(tmp_path)
    write_zip(
        tmp_path / "images_evaluation.zip",
        members("images_evaluation", ["Angelic"], num_characters=2, num_drawings=4),
        content,
    )
    with pytest.raises(TaskDataError, match=r"Angelic/character01/0000.png: not a readable image"):
        config.build()


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    config = make_folders(tmp_path)
    (tmp_path / "validation" / "c" / "1.png").write_text("no image")
    with pytest.raises(TaskDataError, match=r"validation/c/1.png: not a readable image"):
        config.build()


def test_too_few_classes_and_images_are_all_named(tmp_path: Path) -> None:
    config = make_omniglot(tmp_path)
    too_much = config.model_copy(update={"num_ways": 11, "num_queries": 5})
    with pytest.raises(TaskDataError) as error:
        too_much.build()
    text = str(error.value)
    # Two Greek characters are eight classes with rotations; the validation split has ten.
    assert "split train: num_ways = 11 needs as many classes (has 8)" in text
    assert "split validation: num_ways = 11 needs as many classes (has 10)" in text
    assert "split test: num_ways = 11 needs as many classes (has 2)" in text
    assert "split test: num_shots + num_queries = 6 images a class are needed" in text
    assert "Angelic/character01 (4)" in text
    assert str(tmp_path) in text


def test_an_alphabet_that_validation_needs_is_missed(tmp_path: Path) -> None:
    config = make_omniglot(tmp_path)
    names = members(
        "images_background", ["Greek", *VALIDATION_ALPHABETS[1:]], num_characters=2, num_drawings=4
    )
    write_zip(tmp_path / "images_background.zip", names)
    with pytest.raises(TaskDataError, match=f"validation split are missing: {VALIDATION_ALPHABETS[0]}"):
        config.build()


def test_a_listed_class_without_images_is_an_error(tmp_path: Path) -> None:
    config = make_mini_imagenet(tmp_path)
    write_zip(tmp_path / "images.zip", [f"{label}{number}.jpg" for label in "abcf" for number in range(2)])
    with pytest.raises(TaskDataError) as error:
        config.build()
    assert "no image of these classes of ravi_val.csv: d" in str(error.value)
    assert "no image of these classes of ravi_test.csv: e" in str(error.value)


def test_a_class_list_without_its_columns_is_named(tmp_path: Path) -> None:
    config = make_mini_imagenet(tmp_path)
    (tmp_path / "ravi_val.csv").write_text("image,class\na.jpg,a\n")
    with pytest.raises(TaskDataError, match=r"ravi_val.csv: not a list with the columns filename and label"):
        config.build()


def test_a_class_in_two_splits_is_an_error(tmp_path: Path) -> None:
    config = make_folders(tmp_path)
    (tmp_path / "test" / "e").rename(tmp_path / "test" / "a")
    with pytest.raises(TaskDataError, match="class a is in both train and test"):
        config.build()


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({"type": "glyphs", "num_ways": 1}, ("glyphs", "num_ways")),
        ({"type": "glyphs", "num_shots": 0}, ("glyphs", "num_shots")),
        ({"type": "glyphs", "image_size": 4}, ("glyphs", "image_size")),
        ({"type": "omniglot"}, ("omniglot", "root")),
        ({"type": "omniglot", "root": "x", "rotation": True}, ("omniglot", "rotation")),
        ({"type": "image_folder", "root": "x", "channels": 2}, ("image_folder", "channels")),
        ({"type": "image_folder", "root": "x", "split_fractions": [0.5, 0.2, 0.2]}, ("image_folder",)),
    ],
)
def test_wrong_settings_are_located(document: dict[str, object], place: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as error:
        CONFIG.validate_python(document)
    assert error.value.errors()[0]["loc"] == place
