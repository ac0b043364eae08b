"""Classes by name: built-in names, and import paths `package.module:Class` of a user's own."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping

from vosflow.errors import VosflowError


def module_and_class(what: str, name: str, built_in: Mapping[str, str], remedy: str) -> tuple[str, str]:
    """The module and the attribute that `name` stands for.

    Args:
        what: what such a class is, for messages: "tracker".
        built_in: {name: "module:Class"}.
        remedy: where to correct the name.

    Raises:
        VosflowError: neither a built-in name nor an import path.
    """
    module, colon, attribute = built_in.get(name, name).partition(":")
    if colon:
        return module, attribute
    close = difflib.get_close_matches(name, built_in, n=1)
    raise VosflowError(
        f"unknown {what} {name!r}" + (f", did you mean {close[0]!r}?" if close else ""),
        expected="one of " + ", ".join(built_in) + ", or the import path of your own: package.module:Class",
        remedy=remedy,
    )


def load_class(what: str, name: str, target: tuple[str, str]) -> type:
    """The class at `target`, see `module_and_class`; raises VosflowError if it cannot be imported."""
    module, attribute = target
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise VosflowError(
            f"{what} {name!r} cannot be imported ({type(error).__name__}: {error})",
            expected="an importable module and a class in it, written as package.module:Class",
            remedy="check the path, that the module's folder is on PYTHONPATH, and what the module itself imports",
        ) from error
