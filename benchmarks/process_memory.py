"""Memory of processes on Linux, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_FIELDS = ("Rss", "Pss", "Private_Clean", "Private_Dirty")


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    resident: int
    """All that is mapped and in memory, shared pages included."""
    unique: int
    """What no other process maps: free if the process ended."""
    proportional: int
    """Each page divided by the number of processes that map it: a sum over processes counts it once."""


def memory_of(pids: Iterable[int]) -> Memory:
    """The sum over processes; those that have ended count nothing."""
    kilobytes = dict.fromkeys(_FIELDS, 0)
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            name, _, rest = line.partition(":")
            if name in kilobytes:
                kilobytes[name] += int(rest.split()[0])
    resident, proportional, *private = (1024 * kilobytes[name] for name in _FIELDS)
    return Memory(resident, sum(private), proportional)


def children_of(pid: int) -> list[int]:
    """The processes that `pid` has started and that still live."""
    children = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status.rpartition(")")[2].split()[1]) == pid:
            children.append(int(entry.name))
    return children


def title_of(pid: int) -> str:
    """The process's command line, which Ray sets to what the process does; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
