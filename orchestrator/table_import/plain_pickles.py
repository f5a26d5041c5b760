"""Reading files of `torch.save` that hold nothing but plain data.

Such a file is a pickle: a program that may call anything. Here it may build containers, numbers, strings and
tensors, which torch allows with `weights_only`, and numpy's single numbers; what calls for anything else is refused
before that is even imported.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from across.errors import AcrossError

_REFUSALS = re.compile(r"GLOBAL (\S+) w|unrecognized function (.+)|but got (<.+>)")
"""The messages of torch 2.11 to 2.13 that name what a file may not use."""

_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    OSError,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)
"""What torch raises for a file that is cut off, or was never one of its own."""


class TableImportError(AcrossError):
    """An official file cannot be imported; says which file, what is wrong with it and what to do."""


def load_plain(source: Path) -> object:
    """The content of a file of `torch.save`; raises `TableImportError` if it is anything but plain data."""
    try:
        file = source.open("rb")
    except OSError as error:
        raise TableImportError(f"{source}: cannot be read ({error.strerror})") from error
    with file, torch.serialization.safe_globals(_STAND_INS):
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except _DAMAGE as error:
            message = str(error)
            if isinstance(error, pickle.UnpicklingError) and (refusal := _REFUSALS.search(message)):
                (name,) = filter(None, refusal.groups())
                raise TableImportError(
                    f"{source}: wants to use {name}, which a benchmark has no need of and which could run anything:"
                    " nothing was imported; get the file from its authors"
                ) from error
            raise TableImportError(
                f"{source}: cannot be read: it is cut off, or no file of torch.save "
                f"({type(error).__name__}): compare its size with the original's, or download it again"
            ) from error


class NumberType:
    """Stands in for `numpy.dtype`, of which it takes the numbers only: numpy's own can be told to misread memory."""

    def __init__(self, code: str, *_: object) -> None:
        if code not in _NUMBER_CODES:
            raise pickle.UnpicklingError(f"GLOBAL numpy.dtype({code!r}) was refused")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[int, Literal["<", ">", "|", "="], *tuple[object, ...]]) -> None:
        """What numpy pickles of a type beside its code; it is the byte order that matters."""
        self.dtype = self.dtype.newbyteorder(state[1])


def rebuild_number(number_type: NumberType, data: bytes) -> float:
    """Stands in for numpy's function that makes a number of a type and its bytes."""
    (number,) = np.frombuffer(data, dtype=number_type.dtype).tolist()
    return float(number)


_NUMBER_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})

_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (NumberType, "numpy.dtype"),
    (rebuild_number, "numpy.core.multiarray.scalar"),
    (rebuild_number, "numpy._core.multiarray.scalar"),  # since numpy 2
]
