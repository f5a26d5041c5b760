"""The flat layout of a supernet's parameters."""

import numpy as np
import pytest

from across.search_spaces import CellConfig, LayerwiseConfig
from across.search_spaces.base import SearchSpace
from across.search_spaces.parameters import ParameterIndex

INDEX = ParameterIndex({"a": (2, 3), "b": (4,), "c": (2, 2, 1, 1)})
VECTOR = np.arange(14, dtype=np.float32)


def test_parameters_lie_one_after_the_other() -> None:
    assert INDEX.offsets == {"a": 0, "b": 6, "c": 10}
    assert INDEX.size == 14
    assert INDEX.view(VECTOR, "a").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_view_is_no_copy() -> None:
    vector = VECTOR.copy()
    INDEX.view(vector, "a", (2, 2))[:] = -1
    assert vector.tolist() == [-1, -1, 2, -1, -1, 5, *range(6, 14)]


def test_a_smaller_shape_is_the_leading_slice() -> None:
    assert INDEX.view(VECTOR, "a", (2, 2)).tolist() == [[0, 1], [3, 4]]
    assert INDEX.view(VECTOR, "c", (1, 2, 1, 1)).ravel().tolist() == [10, 11]


def test_positions_follow_the_order_asked_for() -> None:
    assert INDEX.positions({"b": (2,), "a": (1, 2)}).tolist() == [6, 7, 0, 1]


def test_a_path_without_parameters_has_no_positions() -> None:
    assert INDEX.positions({}).shape == (0,)
    assert INDEX.positions({}).dtype == np.int64


@pytest.mark.parametrize("space", [LayerwiseConfig().build((1, 28, 28)), CellConfig().build((1, 28, 28))])
def test_positions_and_views_agree_on_every_path(space: SearchSpace) -> None:
    index = ParameterIndex(space.super_architecture().parameters)
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(index.size, dtype=np.float32)
    for _ in range(20):
        architecture = space.architecture(space.sample(rng))
        active = architecture.parameters
        positions = index.positions(active)
        assert len(set(positions.tolist())) == len(positions) == architecture.num_params
        views = [index.view(vector, name, shape) for name, shape in active.items()]
        assert [view.shape for view in views] == list(active.values())
        assert all(np.shares_memory(view, vector) for view in views)
        np.testing.assert_array_equal(vector[positions], np.concatenate([view.ravel() for view in views]))
