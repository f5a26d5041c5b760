"""JSON documents that carry their own checksum and format version.

Canonical JSON: sorted keys, no spaces. JSON has no NaN and no infinities; they are written as the strings
"NaN", "Infinity" and "-Infinity", which pydantic reads back as floats.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from across.errors import AcrossError

FORMAT_VERSION = 1


class SealError(AcrossError):
    """A document is not what was written; says in half a sentence what is wrong with it."""


def canonical_json(document: object) -> bytes:
    """Equal bytes for equal documents."""
    try:
        return _dump(document)
    except ValueError:
        return _dump(_with_named_floats(document))


def seal(content: Mapping[str, object]) -> dict[str, Any]:
    """`content` as JSON values with `format_version` and `checksum`."""
    document: dict[str, Any] = json.loads(sealed_bytes(content))
    return document


def unseal(document: object) -> dict[str, Any]:
    """The content of a sealed document; raises `SealError` if it was changed or is of another version."""
    if not isinstance(document, dict) or "checksum" not in document or "format_version" not in document:
        raise SealError("holds no format_version and checksum")
    if document["format_version"] != FORMAT_VERSION:
        raise SealError(
            f"was written by another version of across (format {document['format_version']}; this version "
            f"reads format {FORMAT_VERSION}): use the version of across that wrote it"
        )
    content = {name: value for name, value in document.items() if name != "checksum"}
    if document["checksum"] != _checksum(canonical_json(content)):
        raise SealError("is damaged or was edited (its checksum does not match)")
    del content["format_version"]
    return content


def sealed_bytes(content: Mapping[str, object]) -> bytes:
    """A sealed document as the bytes of a file: canonical JSON with the checksum of all the rest in front."""
    versioned = canonical_json({**content, "format_version": FORMAT_VERSION})
    return b'{"checksum":"%s",%s\n' % (_checksum(versioned).encode(), versioned[1:])


def read_sealed(path: Path) -> dict[str, Any]:
    """The content of a sealed file; raises `SealError`."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise SealError(f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise SealError("is cut short or damaged (no JSON document)") from error
    return unseal(document)


def _checksum(canonical: bytes) -> str:
    return hashlib.sha256(canonical).hexdigest()


def _dump(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _with_named_floats(value: object) -> object:
    match value:
        case float() if math.isnan(value):
            return "NaN"
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        case Mapping():
            return {name: _with_named_floats(item) for name, item in value.items()}
        case list() | tuple():
            return [_with_named_floats(item) for item in value]
        case _:
            return value
