"""Digests that decide what is stale: of plain data, of files, and of the code that computes a result."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import vosflow

# No result is changed by a version, the wording of an error, the moment of reading a file or an array kept on disk, and
# what a manifest says is part of each key as data. Tables of names: the modules that a name stands for are digested.
UNRELATED = {
    "vosflow",
    "vosflow.ahead",
    "vosflow.artefacts",
    "vosflow.errors",
    "vosflow.manifest",
    "vosflow.trackers.naming",
    "vosflow.trackers.sam_pt.parts",
}


_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal data gives equal text."""
    return _JSON.encode(value)


def data_digest(value: object) -> str:
    """sha256 (hex) of plain data, independent of the order of keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Hash (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def code_digest(*modules: str, without: Sequence[str] = ()) -> str:
    """Digest of the logic of `modules` and of all they import from beside them, directly or not.

    It is taken over syntax trees without docstrings, texts of errors and methods called `notes`: comments, formatting
    and wording change nothing, logic does. Followed are imports of vosflow, and of whatever lies in the folder that
    holds a user's module; installed packages are not (the locked environment is recorded with each result instead).
    Modules are found on disk, never imported.

    Args:
        modules: dotted names; vosflow's own or a user's.
        without: of what they import, modules that do not decide the result; what only these import is left out, too.
    """
    folders = {folder for name in modules if (folder := _home(name)) is not None}
    seen: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen or name in UNRELATED or name in without or _home(name) not in folders:
            continue
        path = _source_file(name)
        if path is None:
            continue
        stat = path.stat()
        seen[name], imports = _module_logic(name, path, stat.st_mtime_ns, stat.st_size)
        waiting += imports
        waiting += _parents(name)
    return data_digest(sorted(seen.items()))


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _home(name: str) -> Path | None:
    """The folder whose modules may import each other and count as one work; a package of its own if it is installed."""
    top = _top_level(name.partition(".")[0])
    if top is None:
        return None
    folder = top.parent.parent if top.name == "__init__.py" else top.parent
    return top if folder.name in ("site-packages", "dist-packages") else folder


def _source_file(name: str) -> Path | None:
    """The file of a module, found from its top-level package without importing anything."""
    first, *rest = name.split(".")
    top = _top_level(first)
    if top is None or not rest:
        return top
    base = top.parent.joinpath(*rest)
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if top.name == "__init__.py" and path.is_file():
            return path
    return None


def _top_level(name: str) -> Path | None:
    """The file of a top-level module or package written in Python; None for all others."""
    if name == "vosflow":
        return Path(vosflow.__file__)
    try:
        spec = importlib.util.find_spec(name) if name else None
    except ValueError:  # a module without a spec, such as __main__
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@functools.cache
def _module_logic(name: str, path: Path, mtime_ns: int, size: int) -> tuple[str, tuple[str, ...]]:
    """(digest of one module's logic, names that it imports); cached until the file changes."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return hashlib.sha256(_shape(tree).encode()).hexdigest(), tuple(_imports(tree, package))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _shape(node: object, *, in_raise: bool = False) -> str:
    """A syntax tree as JSON, equal across Python versions and without what changes no result.

    Text, not lists of lists: Python's garbage collector would go through those again and again, for half of the time.
    """
    if isinstance(node, list):
        return f"[{','.join([_shape(item, in_raise=in_raise) for item in node])}]"
    if not isinstance(node, ast.AST):
        return canonical_json(repr(node))
    if in_raise and isinstance(node, ast.Constant) and isinstance(node.value, str):
        return '"text"'
    in_raise = in_raise or isinstance(node, ast.Raise) or _makes_an_error(node)
    fields = []
    for key, value in ast.iter_fields(node):
        if value is None or value == [] or key in ("ctx", "kind", "type_comment"):
            continue
        if key == "body" and isinstance(value, list):
            value = value[1:] if _is_docstring(node, value[0]) else value
            value = [item for item in value if not (isinstance(item, ast.FunctionDef) and item.name == "notes")]
        fields.append(f'["{key}",{_shape(value, in_raise=in_raise)}]')
    return f'["{type(node).__name__}",[{",".join(fields)}]]'


def _makes_an_error(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error")


def _is_docstring(parent: ast.AST, statement: ast.AST) -> bool:
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return (
        isinstance(parent, holders)
        and isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
