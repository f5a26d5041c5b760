"""Keep freed memory in the process, so that large activations are not page-faulted in again at every layer."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Tell glibc's malloc to serve large blocks from its heap and never to shrink it.

    By default each block over 32 MiB is mapped afresh and given back when freed, which costs several times the
    arithmetic of a layer on a CPU. Returns whether the C library took the settings (others are left as they are).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
