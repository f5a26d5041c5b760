"""The contract of every task source, their published counts, and what they say about bad data."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import TypeAdapter

from across.workers.base import Split, TaskBatch, TaskSource
from across.workers.tasks import TaskSourceConfig
from across.workers.tasks.episodes import SPLITS, ImageTasks
from across.workers.tasks.image_folder import ImageFolderConfig
from across.workers.tasks.mini_imagenet import list_photographs
from across.workers.tasks.omniglot import VALIDATION_ALPHABETS, list_characters

CONFIG = TypeAdapter[TaskSourceConfig](TaskSourceConfig)
NAMES = [config.model_fields["type"].default for config in get_args(get_args(TaskSourceConfig)[0])]
SEEDS = [3, 0, 2**62 + 1]
NUM_WAYS, NUM_SHOTS, NUM_QUERIES = 5, 2, 4


def copy_members(source: Path, target: Path, keep: Callable[[str], bool]) -> None:
    """An archive of the files of `source` whose names are kept."""
    with zipfile.ZipFile(source) as original, zipfile.ZipFile(target, "w") as archive:
        for name in original.namelist():
            if not name.endswith("/") and keep(name):
                archive.writestr(name, original.read(name))


def copy_omniglot(shared_data: Path, root: Path) -> Path:
    """Six alphabets of the background set and two of the evaluation set, at most four characters each."""
    root.mkdir()
    alphabets = {*VALIDATION_ALPHABETS, "Greek", "Angelic", "Tibetan"}
    for name in ("images_background.zip", "images_evaluation.zip"):
        copy_members(
            shared_data / "omniglot" / name,
            root / name,
            lambda member: member.split("/")[1] in alphabets and member.split("/")[2] <= "character04",
        )
    return root


def copy_mini_imagenet(shared_data: Path, root: Path, *, num_images: int = 7) -> Path:
    """The class lists and the first images of each class."""
    root.mkdir()
    source = shared_data / "mini_imagenet"
    for path in source.glob("*.csv"):
        (root / path.name).symlink_to(path)
    seen: Counter[str] = Counter()

    def keep(member: str) -> bool:
        label = Path(member).name[:9]
        seen[label] += 1
        return seen[label] <= num_images

    copy_members(source / "images_100x100.zip", root / "images.zip", keep)
    return root


def make_image_folder(archive: Path, root: Path) -> Path:
    """Five classes of photographs in each split's folder."""
    with zipfile.ZipFile(archive) as photographs:
        for number, name in enumerate(sorted(photographs.namelist())[: 15 * 7]):
            folder = root / SPLITS[number // 7 % 3] / f"class_{number // 7:02}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(name).name).write_bytes(photographs.read(name))
    (root / "train" / "class_00" / "notes.txt").write_text("no image")
    (root / "train" / "empty").mkdir()
    return root


@pytest.fixture(scope="session")
def documents(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """A config of each source, as a YAML file would hold it, over real data."""
    root = tmp_path_factory.mktemp("task_data")
    omniglot = copy_omniglot(shared_data, root / "omniglot")
    mini_imagenet = copy_mini_imagenet(shared_data, root / "mini_imagenet")
    folders = make_image_folder(mini_imagenet / "images.zip", root / "image_folder")
    documents: dict[str, dict[str, object]] = {
        "glyphs": {},
        "omniglot": {"root": str(omniglot)},
        "mini_imagenet": {"root": str(mini_imagenet)},
        "image_folder": {"root": str(folders), "image_size": 32},
    }
    counts = {"num_ways": NUM_WAYS, "num_shots": NUM_SHOTS, "num_queries": NUM_QUERIES}
    return {name: {"type": name, **documents[name], **counts} for name in NAMES}


@pytest.fixture(params=NAMES)
def source(request: pytest.FixtureRequest, documents: dict[str, dict[str, object]]) -> TaskSource:
    return CONFIG.validate_python(documents[request.param]).build()


def tensors(batch: TaskBatch) -> tuple[torch.Tensor, ...]:
    return batch.support_inputs, batch.support_targets, batch.query_inputs, batch.query_targets


def digest(batch: TaskBatch) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors(batch))).hexdigest()


def classes_of(source: ImageTasks) -> dict[bytes, tuple[Split, str, int]]:
    """Split, class and quarter turns of every image that a task may show."""
    return {
        np.rot90(image, turn, axes=(-2, -1)).tobytes(): (split, item.name, turn)
        for split, classes in source.data.splits.items()
        for item in classes
        for image in source.data.images[item.first : item.first + item.num_images]
        for turn in range(source.data.num_turns(split))
    }


def drawn_images(source: ImageTasks, inputs: torch.Tensor) -> Iterator[bytes]:
    """The images behind standardised inputs (B, C, H, W)."""
    mean, deviation = (np.array(values)[:, None, None] for values in source.standardization)
    for pixels in inputs.numpy():
        yield np.rint((pixels * deviation + mean) * 255).astype(np.uint8).tobytes()


# The contract, for every source.


def test_shapes_types_and_labels(source: TaskSource) -> None:
    spec = source.spec
    batch = source.sample("train", SEEDS)
    assert (spec.num_ways, spec.num_shots, spec.num_queries) == (NUM_WAYS, NUM_SHOTS, NUM_QUERIES)
    assert spec.objective == "classification"
    assert batch.spec == spec
    assert batch.support_inputs.shape == (3, NUM_WAYS * NUM_SHOTS, *spec.input_shape)
    assert batch.query_inputs.shape == (3, NUM_WAYS * NUM_QUERIES, *spec.input_shape)
    assert batch.support_inputs.dtype == batch.query_inputs.dtype == torch.float32
    assert batch.support_targets.dtype == batch.query_targets.dtype == torch.int64
    assert all(tensor.is_contiguous() and tensor.device.type == "cpu" for tensor in tensors(batch))
    for task in range(3):
        assert Counter(batch.support_targets[task].tolist()) == dict.fromkeys(range(NUM_WAYS), NUM_SHOTS)
        assert Counter(batch.query_targets[task].tolist()) == dict.fromkeys(range(NUM_WAYS), NUM_QUERIES)


def test_inputs_span_their_range(source: TaskSource) -> None:
    inputs = source.sample("test", range(8)).query_inputs
    if source.spec.input_shape[0] == 1:
        assert inputs.min() == 0
        assert inputs.max() == 1
        assert inputs.mean() < 0.3  # strokes are 1, paper is 0
    else:
        assert abs(inputs.mean()) < 0.5
        assert 0.7 < inputs.std() < 1.4


@pytest.mark.parametrize("split", SPLITS)
def test_a_seed_alone_decides_a_task(source: TaskSource, split: Split) -> None:
    together = source.sample(split, SEEDS)
    for position, seed in enumerate(SEEDS):
        alone = source.sample(split, [seed])
        for expected, found in zip(tensors(together), tensors(alone), strict=True):
            assert torch.equal(expected[position], found[0])
    other = source.sample(split, [4])
    assert not torch.equal(other.support_inputs[0], together.support_inputs[0])


def test_a_fresh_process_draws_the_same_tasks(documents: dict[str, dict[str, object]]) -> None:
    program = f"import sys; sys.path.insert(0, 'tests'); import {__name__} as tests; tests.print_digests()"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == digests(documents)


def digests(documents: dict[str, dict[str, object]]) -> dict[str, str]:
    return {
        name: digest(CONFIG.validate_python(document).build().sample("train", SEEDS))
        for name, document in documents.items()
    }


def print_digests() -> None:
    sys.stdout.write(json.dumps(digests(json.load(sys.stdin))))


def test_no_tasks_make_an_empty_batch(source: TaskSource) -> None:
    batch = source.sample("train", [])
    assert batch.num_tasks == 0
    assert batch.query_inputs.shape[1:] == (NUM_WAYS * NUM_QUERIES, *source.spec.input_shape)


def test_a_negative_seed_is_refused(source: TaskSource) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        source.sample("train", [-1])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "glyphs"])
def test_tasks_draw_distinct_classes_and_images(name: str, documents: dict[str, dict[str, object]]) -> None:
    source = cast(ImageTasks, CONFIG.validate_python(documents[name]).build())
    known = classes_of(source)
    seen: dict[Split, set[str]] = {split: set() for split in SPLITS}
    for split in SPLITS:
        batch = source.sample(split, range(20))
        for task in range(20):
            images = torch.cat([batch.support_inputs[task], batch.query_inputs[task]])
            targets = torch.cat([batch.support_targets[task], batch.query_targets[task]])
            drawn = list(drawn_images(source, images))
            assert len(set(drawn)) == len(drawn)
            label_of: dict[tuple[str, int], set[int]] = {}
            for image, target in zip(drawn, targets.tolist(), strict=True):
                home, label, turn = known[image]
                assert home == split
                label_of.setdefault((label, turn), set()).add(target)
                seen[split].add(label)
            assert sorted(min(labels) for labels in label_of.values()) == list(range(NUM_WAYS))
            assert all(len(labels) == 1 for labels in label_of.values())
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


# Published counts.


def test_omniglot_has_its_published_counts(shared_data: Path) -> None:
    root = shared_data / "omniglot"
    characters = list_characters(root / "images_background.zip", root / "images_evaluation.zip")
    assert len(characters["train"]) + len(characters["validation"]) == 964
    assert len(characters["validation"]) == 172
    assert len(characters["test"]) == 659
    assert {len(drawings) for split in SPLITS for drawings in characters[split].values()} == {20}
    alphabets = [{name.partition("/")[0] for name in characters[split]} for split in SPLITS]
    assert [len(names) for names in alphabets] == [25, 5, 20]
    assert not set.intersection(*alphabets)


def test_mini_imagenet_has_its_published_counts(shared_data: Path) -> None:
    root = shared_data / "mini_imagenet"
    photographs = list_photographs(root, root / "images_100x100.zip")
    assert [len(photographs[split]) for split in SPLITS] == [64, 16, 20]
    # The archive at hand holds 100 of the 600 images of a class; the lists name all.
    assert {len(images) for split in SPLITS for images in photographs[split].values()} == {100}


def test_rotations_are_classes_of_the_training_split_only(documents: dict[str, dict[str, object]]) -> None:
    config = CONFIG.validate_python(documents["omniglot"])
    turned = cast(ImageTasks, config.build())
    upright = cast(ImageTasks, config.model_copy(update={"rotations": False, "num_ways": 4}).build())
    assert [turned.data.num_turns(split) for split in SPLITS] == [4, 1, 1]
    assert [upright.data.num_turns(split) for split in SPLITS] == [1, 1, 1]
    known = classes_of(turned)
    batch = turned.sample("train", range(10))
    drawn = [image for task in batch.query_inputs for image in drawn_images(turned, task)]
    assert {known[image][2] for image in drawn} == {0, 1, 2, 3}


def test_classes_are_split_by_fractions_in_the_order_of_names(tmp_path: Path) -> None:
    for number in range(10):
        folder = tmp_path / f"class_{number}"
        folder.mkdir()
        for image in range(2):
            Image.new("L", (40, 30), color=10 * number + image).save(folder / f"{image}.png")
    config = ImageFolderConfig(
        root=tmp_path,
        split_fractions=(0.5, 0.2, 0.3),
        image_size=8,
        channels=1,
        num_ways=2,
        num_shots=1,
        num_queries=1,
    )
    data = cast(ImageTasks, config.build()).data
    assert {split: [item.name for item in classes] for split, classes in data.splits.items()} == {
        "train": [f"class_{number}" for number in range(5)],
        "validation": ["class_5", "class_6"],
        "test": ["class_7", "class_8", "class_9"],
    }
    assert data.images.shape == (20, 1, 8, 8)
    assert data.images.reshape(20, -1).max(axis=1).tolist() == [
        10 * n + image for n in range(10) for image in (0, 1)
    ]


def write_class(folder: Path, image: Image.Image, name: str = "0.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / name)


def only_image(root: Path, image: Image.Image) -> NDArray[np.uint8]:
    """What a folder of images makes of `image`, in grey."""
    for number in range(6):
        for copy in range(2):
            write_class(root / f"class{number}", image, f"{copy}.png")
    config = ImageFolderConfig(
        root=root, image_size=8, channels=1, split_fractions=(0.4, 0.3, 0.3), num_ways=2, num_queries=1
    )
    source = config.build()
    assert isinstance(source, ImageTasks)
    return np.asarray(source.data.images[0, 0])


def test_pixels_of_16_bits_are_scaled(tmp_path: Path) -> None:
    deep = np.full((8, 8), 30_000, dtype=np.uint16)
    deep[:, :4] = 65_535
    pixels = only_image(tmp_path, Image.fromarray(deep))
    assert set(pixels[:, :4].ravel()) == {255}
    assert set(pixels[:, 4:].ravel()) == {30_000 // 257}


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    drawing = np.zeros((8, 8, 4), dtype=np.uint8)
    drawing[2:4, 2:4, 3] = 255  # black ink on nothing
    pixels = only_image(tmp_path, Image.fromarray(drawing))
    assert (pixels == 0).sum() == 4
    assert (pixels == 255).sum() == 60


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    write_class(tmp_path / ".ipynb_checkpoints", Image.new("L", (8, 8)))
    only_image(tmp_path, Image.new("L", (8, 8), 7))
    config = ImageFolderConfig(
        root=tmp_path, image_size=8, channels=1, split_fractions=(0.4, 0.3, 0.3), num_ways=2, num_queries=1
    )
    source = config.build()
    assert isinstance(source, ImageTasks)
    names = [each.name for classes in source.data.splits.values() for each in classes]
    assert names == [f"class{number}" for number in range(6)]
