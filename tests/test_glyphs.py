"""Drawn characters: no class is stored, so classes are told apart by drawings that do not vary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from across.workers.tasks.episodes import SPLITS
from across.workers.tasks.glyphs import GlyphsConfig, make_characters


def test_glyphs_of_a_class_differ_only_by_pen_without_jitter() -> None:
    batch = GlyphsConfig(jitter=0.0, num_ways=20).build().sample("train", [7])
    drawings = [
        {image.tobytes() for image in way.numpy()} for way in batch.query_inputs[0].reshape(20, 15, -1)
    ]
    assert all(1 < len(way) <= 6 for way in drawings)
    assert len(set.union(*drawings)) == sum(len(way) for way in drawings)


def test_glyph_classes_differ_between_splits_and_class_seeds() -> None:
    ids = np.arange(50)
    sets = [make_characters(seed, split, ids)[0] for seed in (0, 1) for split in SPLITS]
    distinct = {character.tobytes() for characters in sets for character in characters}
    assert len(distinct) == 6 * 50


def test_glyphs_are_a_task_to_learn() -> None:
    """The nearest image in pixels is above chance (0.2) and far from right, as on Omniglot (about 0.45)."""
    batch = GlyphsConfig().build().sample("test", range(100))
    distances = torch.cdist(batch.query_inputs.flatten(2), batch.support_inputs.flatten(2))
    accuracy = (distances.argmin(dim=-1) == batch.query_targets).float().mean().item()
    assert 0.35 < accuracy < 0.6


@pytest.mark.parametrize("image_size", [12, 28, 64])
def test_glyphs_of_any_size_have_as_much_ink(image_size: int) -> None:
    inputs = GlyphsConfig(image_size=image_size).build().sample("train", range(10)).query_inputs
    assert 0.06 < inputs.mean() < 0.16
