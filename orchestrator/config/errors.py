"""What is wrong with a configuration, in the words of its file: dotted keys, values, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from across.errors import AcrossError
from across.orchestrator.config.run_config import RunConfig

Key = tuple[str | int, ...]

_SHOWN_LENGTH = 60


class ConfigError(AcrossError):
    """A configuration that cannot be used; its text has one line a problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problems))


def explain(error: ValidationError, document: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The dotted key (empty for the whole document) and the problem of each error in a `RunConfig`."""
    for details in error.errors(include_url=False):
        if _is_echo(details):
            continue
        key, models = _locate(details["loc"], document)
        if details["type"] in ("union_tag_invalid", "union_tag_not_found"):
            key = (*key, "type")
        yield ".".join(map(str, key)), _problem(details, models)


def nearest_first(word: str, choices: Iterable[str]) -> list[str]:
    """`choices`, those that look most like `word` first."""
    return sorted(choices, key=lambda choice: -SequenceMatcher(None, word, choice).ratio())


def shown(value: object) -> str:
    """A value as it would stand in the file, shortened."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case Mapping():
            return "keys with values"
        case list() | tuple():
            return f"a list of {len(value)}"
        case _:
            text = repr(value)
            return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def _is_echo(details: ErrorDetails) -> bool:
    """Whether a list is called too short only because its entries, reported themselves, are invalid."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def _locate(location: Key, document: object) -> tuple[Key, tuple[type[BaseModel], ...]]:
    """The key in the document for pydantic's location, and the models of the section that holds it.

    Pydantic's location also names the chosen member of a union (`strategy`, `genetic`, `num_elites`), and the
    position 0 where a single task source stands without a list.
    """
    key: list[str | int] = []
    models: tuple[type[BaseModel], ...] = (RunConfig,)
    holders = models
    for part in location:
        if len(models) > 1 and isinstance(part, str):
            models = tuple(model for model in models if _tag(model) == part)
            holders = models
        elif isinstance(part, int):
            if isinstance(document, Mapping):
                continue
            key.append(part)
            document = _entry(document, part)
        else:
            key.append(part)
            document = _entry(document, part)
            holders = models
            field = models[0].model_fields.get(part) if models else None
            models = tuple(_models_in(field.annotation)) if field else ()
    return tuple(key), models if len(models) > 1 else holders


def _entry(document: object, part: str | int) -> object:
    if isinstance(document, Mapping):
        return document.get(part)
    is_inside = isinstance(document, list | tuple) and isinstance(part, int) and part < len(document)
    return document[part] if is_inside else None  # type: ignore[index]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _tag(model: type[BaseModel]) -> str:
    (tag,) = get_args(model.model_fields["type"].annotation)
    return str(tag)


def _problem(details: ErrorDetails, models: tuple[type[BaseModel], ...]) -> str:
    context, value = details.get("ctx", {}), shown(details["input"])
    match details["type"]:
        case "extra_forbidden":
            return _unknown_key(str(details["loc"][-1]), models)
        case "missing" if isinstance(details["loc"][-1], int):
            return "missing entry: the list is too short"
        case "missing":
            return "missing key"
        case "union_tag_not_found":
            return f"missing key; choose one of {', '.join(map(_tag, models))}"
        case "union_tag_invalid":
            return _unknown_choice(str(context["tag"]), [_tag(model) for model in models])
        case "literal_error":
            choices = re.findall(r"[^\s',]+", context["expected"].replace(" or ", " "))
            return _unknown_choice(str(details["input"]), choices)
        case "value_error":
            return str(context["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a section, keys with values (got {value})"
        case _:
            return f"{_requirement(details['type'], context, details['msg'])} (got {value})"


def _unknown_key(key: str, models: tuple[type[BaseModel], ...]) -> str:
    valid = [name for model in models for name in model.model_fields]
    close = get_close_matches(key, valid, n=1, cutoff=0.7)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; valid are {', '.join(valid)}"


def _unknown_choice(value: str, choices: Sequence[str]) -> str:
    close = get_close_matches(value, choices, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"must be one of {', '.join(nearest_first(value, choices))} (got {value}){hint}"


def _requirement(kind: str, context: Mapping[str, Any], message: str) -> str:
    match kind:
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}"
        case "greater_than":
            return f"must be above {context['gt']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:g}"
        case "less_than":
            return f"must be below {context['lt']:g}"
        case "too_short":
            return f"must have at least {_count(context['min_length'], 'entry', 'entries')}"
        case "too_long":
            return f"must have at most {_count(context['max_length'], 'entry', 'entries')}"
        case "string_too_short":
            return f"must have at least {_count(context['min_length'], 'character', 'characters')}"
        case "string_too_long":
            return f"must have at most {_count(context['max_length'], 'character', 'characters')}"
        case "string_pattern_mismatch":
            return f"must match the pattern {context['pattern']}"
        case "int_type" | "int_parsing" | "int_from_float" | "int_parsing_size":
            return "must be an integer"
        case "float_type" | "float_parsing":
            return "must be a number"
        case "finite_number":
            return "must be a finite number"
        case "bool_type" | "bool_parsing":
            return "must be true or false"
        case "string_type":
            return "must be a text"
        case "path_type":
            return "must be a path"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "invalid_key":
            return "keys must be texts"
        case _:
            return message[:1].lower() + message[1:]


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"
