"""What pydantic finds, told in the words of the user's file: the key, what is allowed, the closest known key."""

from __future__ import annotations

import contextlib
import difflib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from vosflow.errors import VosflowError


@contextlib.contextmanager
def explain_validation(model: type[BaseModel], source: str | Path) -> Iterator[None]:
    """Turn pydantic's ValidationError for `model` into a VosflowError about `source`."""
    try:
        yield
    except ValidationError as error:
        findings = [_finding(model, item) for item in error.errors()]
        raise VosflowError(
            "\n".join(["not valid:", *(f"  - {finding}" for finding in findings)]),
            path=source,
            remedy="correct the keys named above",
        ) from error


def _finding(model: type[BaseModel], item: Mapping[str, Any]) -> str:
    place = [str(part) for part in item["loc"]]
    key = ".".join(place) or "(top level)"
    if item["type"] != "extra_forbidden":
        given = "" if item["type"] == "missing" else f" (it is {item['input']!r})"
        return f"{key}: {item['msg'].removeprefix('Value error, ')}{given}"
    known = _keys_beside(model, item["loc"])
    close = difflib.get_close_matches(place[-1], known, n=1)
    guess = f", did you mean {close[0]!r}?" if close else "."
    return f"{key}: unknown key{guess} Known here: {', '.join(known)}"


def _keys_beside(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Keys that are allowed where the key at `location` stands."""
    current: Any = model
    for part in location[:-1]:
        fields = getattr(current, "model_fields", {})
        current = _model_in(fields[part].annotation) if part in fields else current
    return list(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """The pydantic model inside an annotation such as list[Model] or dict[str, Model], if there is one."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
