"""How many threads a predictor computes with: bits depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


@contextmanager
def fixed_threads(num: int) -> Iterator[None]:
    """Compute with `num` threads whatever the machine has: sums over more of them differ in the last bit."""
    before = torch.get_num_threads()
    with threadpool_limits(num):
        torch.set_num_threads(num)
        try:
            yield
        finally:
            torch.set_num_threads(before)
