"""The YAML file of a config as plain keys and values, with `key.sub=value` settings over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from across.orchestrator.config.errors import ConfigError, shown

OVERRIDE = "--set"
"""Where a problem comes from that is not in the file."""


def read_document(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError([f"{path}: there is no such file{_suggest_file(path)}"]) from error
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is no text in UTF-8"]) from error
    try:
        problems = list(_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader)))
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([f"{path}: {_syntax_problem(error)}"]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError([f"{path}: is no YAML document ({error})"]) from error
    if problems:
        raise ConfigError([f"{path}: {problem}" for problem in problems])
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError([f"{path}: must hold keys with values (got {shown(document)})"])
    return document


def override(document: dict[str, Any], overrides: Sequence[str]) -> list[str]:
    """Change `document` as the settings say; their keys. Raises `ConfigError`."""
    keys, problems = [], []
    for text in overrides:
        key, equals, value_text = text.partition("=")
        try:
            if not equals or not all(key.split(".")):
                raise ConfigError(["must have the form key.sub=value"])
            _put(document, key.split("."), _parse_value(value_text))
            keys.append(key)
        except ConfigError as error:
            problems.append(f"{OVERRIDE} {text}: {error}")
    if problems:
        raise ConfigError(problems)
    return keys


def _suggest_file(path: Path) -> str:
    folders = [path.parent] if path.parent != Path() else [path.parent, Path("configs")]
    files = {str(file): file.stem for folder in folders for file in sorted(folder.glob("*.y*ml"))}
    close = get_close_matches(path.stem, files.values(), n=1)
    if close:
        return f"; did you mean {next(file for file, stem in files.items() if stem == close[0])}?"
    return f"; there are {', '.join(files)}" if files else ""


def _syntax_problem(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return where + " ".join(part for part in (error.context, error.problem) if part)


def _repeated_keys(root: yaml.Node | None) -> Iterator[str]:
    """Keys that stand twice in one section: YAML's reader would silently take the last one."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in names:
                        yield f"line {key.start_mark.line + 1}: the key {key.value} is repeated"
                    names.add(key.value)


def _parse_value(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(["the value is no YAML; put quotes around it"]) from error


def _put(document: dict[str, Any], parts: Sequence[str], value: object) -> None:
    """Set the value at the key `parts`, making sections on the way."""
    holder: Any = document
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        where = ".".join(parts[:depth])
        if isinstance(holder, list):
            if not part.isdecimal() or int(part) >= len(holder):
                raise ConfigError(
                    [f"{where} is a list: name one of its entries, {where}.0 to {len(holder) - 1}"]
                )
            index: str | int = int(part)
        elif isinstance(holder, dict):
            index = part
            if not is_last and holder.get(part) is None:
                holder[part] = {}
        else:
            raise ConfigError([f"{where} is no section (it is {shown(holder)})"])
        if is_last:
            holder[index] = value
        else:
            holder = holder[index]
