"""From a YAML file and `--set key=value` to a `RunConfig`, with all that is wrong said at once.

Paths in a config are relative to the working directory, where `--set` and the shell take them too; they are made
absolute here, so that a run can be resumed from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from across.orchestrator.config.document import OVERRIDE, override, read_document
from across.orchestrator.config.errors import ConfigError, explain, shown
from across.orchestrator.config.run_config import RunConfig
from across.search_spaces.base import Config

Section = TypeVar("Section", bound=Config)

CHANGEABLE_ON_RESUME = (
    "search.*",
    "test.*",
    "workers.*",
    "tracking.*",
    "evaluation.tasks_per_chunk",
    "meta_learning.tasks_per_shard",
    "meta_learning.checkpoint_seconds",
    "strategy.signals.max_images",
    "strategy.signals.few_steps.num_tasks",
)
"""Patterns of the keys that do not decide which search this is."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The config in the file `path`, with `key.sub=value` settings over it; raises `ConfigError`."""
    document = read_document(path)
    keys = override(document, overrides)
    return _parse(document, origin=str(path), overridden=keys)


def parse_config(document: Mapping[str, object], *, origin: str) -> RunConfig:
    """The config that `document` holds; raises `ConfigError`, whose lines begin with `origin`."""
    return _parse(document, origin=origin, overridden=())


def with_overrides(config: RunConfig, overrides: Sequence[str], *, origin: str) -> RunConfig:
    """`config` with `key.sub=value` settings over it; raises `ConfigError`."""
    document = config.model_dump(mode="json")
    keys = override(document, overrides)
    return _parse(document, origin=origin, overridden=keys)


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Dotted keys in which the two differ, in the order of the file."""
    former, latter = _flat(old), _flat(new)
    keys = dict.fromkeys([*former, *latter])
    return [key for key in keys if former.get(key, _ABSENT) != latter.get(key, _ABSENT)]


def changed_settings(old: RunConfig, new: RunConfig) -> dict[str, Any]:
    """The settings of `new` that differ from `old`: JSON values by dotted key."""
    latter = _flat(new)
    return {key: latter[key] for key in differences(old, new) if key in latter}


def check_resume_overrides(old: RunConfig, new: RunConfig) -> RunConfig:
    """`new`, if a search started with `old` may go on with it; raises `ConfigError` naming what may not change."""
    former, latter = _flat(old), _flat(new)
    problems = [
        f"{key}: cannot change in a search that has started"
        f" ({shown(former.get(key))} there, {shown(latter.get(key))} here)"
        for key in differences(old, new)
        if not any(fnmatchcase(key, pattern) for pattern in CHANGEABLE_ON_RESUME)
    ]
    if problems:
        raise ConfigError(
            [
                *problems,
                "generations before and after would not be of one search: give the changed one a name or a"
                f" --run-dir of its own; what may change on resume: {', '.join(CHANGEABLE_ON_RESUME)}",
            ]
        )
    return new


_ABSENT = object()


def _flat(config: RunConfig) -> dict[str, Any]:
    return dict(_leaves(config.model_dump(mode="json"), ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; lists are values unless they hold sections."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list | tuple) and value and all(isinstance(item, dict) for item in value):
        for position, item in enumerate(value):
            yield from _leaves(item, f"{key}.{position}")
    else:
        yield key, value


def _parse(document: Mapping[str, object], *, origin: str, overridden: Sequence[str]) -> RunConfig:
    try:
        config = RunConfig.model_validate(document)
    except ValidationError as error:
        raise ConfigError(
            [_line(key, problem, origin, overridden) for key, problem in explain(error, document)]
        ) from error
    infinite = [
        _line(key, f"must be a finite number (got {value})", origin, overridden)
        for key, value in _leaves(config.model_dump(), "")
        if isinstance(value, float) and not isfinite(value)
    ]
    if infinite:
        raise ConfigError(infinite)
    return _with_absolute_paths(config)


def _line(key: str, problem: str, origin: str, overridden: Sequence[str]) -> str:
    is_overridden = any(_is_within(key, each) or _is_within(each, key) for each in overridden)
    parts = [OVERRIDE if is_overridden else origin, key, problem]
    return ": ".join(part for part in parts if part)


def _is_within(key: str, section: str) -> bool:
    return f"{key}.".startswith(f"{section}.")


def _with_absolute_paths(section: Section) -> Section:
    return section.model_copy(update={name: _absolute(value) for name, value in section})


def _absolute(value: object) -> object:
    match value:
        case Path():
            return value.expanduser().absolute()
        case Config():
            return _with_absolute_paths(value)
        case tuple():
            return tuple(map(_absolute, value))
        case _:
            return value
