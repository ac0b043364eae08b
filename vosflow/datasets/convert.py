"""Pickled weights to safetensors, without running what is in the pickle.

A pickle (`.npy` with objects, old `.pt`/`.pth`) is a program: read as its authors read it, it can run any code. Here
only the few constructors that tensors need are known (NumPy arrays, torch storages, plain containers); any other name
that the pickle asks for is refused by name. With `drop_unknown`, such objects (states of optimizers, configurations)
become empty stand-ins and are left out: still nothing of the file is run. All this happens in a process of its own.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from vosflow.errors import VosflowError

HOUSE = Path(__file__).resolve().parents[2]
HARMLESS = {
    "collections": ("OrderedDict", "defaultdict"),
    "builtins": ("set", "frozenset", "slice", "complex", "bytearray"),
    "_codecs": ("encode",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.numeric": ("_frombuffer",),
    "torch": (
        "Size",
        "device",
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
    ),
    "torch._utils": ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter"),
}
"""What a pickle may name: constructors of arrays, tensors and containers, none of which runs code of the file."""


def convert_checkpoint(path: str | Path, output: str | Path, *, drop_unknown: bool = False) -> dict[str, Any]:
    """Convert pickled weights to a safetensors file, in a process of its own.

    Nested dictionaries become names joined by "/"; what is neither array nor dictionary is left out.

    Args:
        path: a `.npy` file with objects, or a `.pt`/`.pth` file.
        output: the safetensors file; appears at once or not at all.
        drop_unknown: leave out objects of unknown classes instead of refusing the file.

    Returns:
        tensors: number of tensors; dropped: names of the unknown classes that were left out.

    Raises:
        VosflowError: the file asks for anything that is not harmless, is damaged, or holds no tensors.
    """
    command = [sys.executable, "-I", "-c", _CHILD, str(HOUSE), str(path), str(output), str(int(drop_unknown))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        answer = {"error": f"the converting process ended with status {done.returncode}: {done.stderr.strip()[-300:]}"}
    if refused := answer.get("refused"):
        raise VosflowError(
            f"refused: it is a pickle that asks for {', '.join(refused)}. Read in the usual way, it would run that; "
            "here, nothing of it was run",
            path=path,
            expected="arrays, tensors and dictionaries only",
            remedy="check where the file is from. If these names are states of an optimizer or a configuration, "
            f"leave them out: python scripts/convert_checkpoint.py {path} --output {output} --drop-unknown",
        )
    if "error" in answer:
        raise VosflowError(
            f"cannot be converted ({answer['error']})",
            path=path,
            expected="a complete .npy, .pt or .pth file with arrays or tensors",
            remedy="delete it and fetch it again",
        )
    return answer


_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from vosflow.datasets.convert import _convert_here
_convert_here(sys.argv[2], sys.argv[3], sys.argv[4] == "1")
"""


def _convert_here(path: str, output: str, drop_unknown: bool) -> None:
    """Convert in this process; prints one JSON object."""
    unknown: set[str] = set()
    try:
        found = list(_flatten(_load(Path(path), unknown, drop_unknown)))
        tensors = dict(found)
        if not tensors:
            raise ValueError("it holds no tensors")
        if len(tensors) < len(found):
            raise ValueError("two of its tensors would have the same name")
        _save(tensors, Path(output))
        print(json.dumps({"tensors": len(tensors), "dropped": sorted(unknown)}))
    except _Refused:
        print(json.dumps({"refused": sorted(unknown)}))
    except Exception as error:  # whatever a damaged or hostile file leads to is told to the other process
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}))


class _Refused(Exception):
    pass


class _StandIn:
    """Takes the place of an object whose class is not known to be harmless; keeps nothing."""

    def __new__(cls, *arguments: object, **keywords: object) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *arguments: object, **keywords: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Elements of list-like objects are left out too."""

    def extend(self, values: object) -> None:
        """See `append`."""

    def __call__(self, *arguments: object, **keywords: object) -> _StandIn:
        return self


def _unpickler(unknown: set[str], drop_unknown: bool) -> type[pickle.Unpickler]:
    class Unpickler(pickle.Unpickler):
        """Knows harmless names only; notes all others in `unknown`."""

        def find_class(self, module: str, name: str) -> Any:
            if name in HARMLESS.get(module, ()):
                return super().find_class(module, name)
            unknown.add(f"{module}.{name}")
            if drop_unknown:
                return type(name.rpartition(".")[2], (_StandIn,), {})
            return _StandIn  # the file is refused at the end, when all such names are known

    return Unpickler


def _load(path: Path, unknown: set[str], drop_unknown: bool) -> Any:
    kind = _unpickler(unknown, drop_unknown)
    content: Any = None
    try:
        content = _load_npy(path, kind) if path.suffix == ".npy" else _load_torch(path, kind)
    except Exception:
        if not unknown or drop_unknown:
            raise
    if unknown and not drop_unknown:
        raise _Refused
    return content


def _load_npy(path: Path, kind: type[pickle.Unpickler]) -> Any:
    import numpy as np

    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
        _, _, dtype = read_header(file)
        if not dtype.hasobject:
            return {"array": np.load(path, allow_pickle=False)}
        content = kind(file).load()
    return content.item() if isinstance(content, np.ndarray) and content.ndim == 0 else content


def _load_torch(path: Path, kind: type[pickle.Unpickler]) -> Any:
    import torch

    if zipfile.is_zipfile(path) and any(n.endswith("/constants.pkl") for n in zipfile.ZipFile(path).namelist()):
        raise ValueError("a TorchScript archive: it holds a program, and torch would read it past the check of names")
    module = ModuleType("vosflow_harmless_pickle")
    module.Unpickler = kind

    def load(file: IO[bytes], **options: Any) -> Any:
        return kind(file, **options).load()

    module.load = load
    # torch reads the tensors itself; every name that the pickle asks for goes through `find_class` above.
    return torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and content of all tensors (of a file of torch) or arrays (of a file of NumPy)."""
    import numpy as np

    if isinstance(content, dict):
        for key, value in content.items():
            yield from _flatten(value, f"{prefix}/{key}" if prefix else str(key))
    elif isinstance(content, np.ndarray | np.generic) and content.dtype.kind in "biuf":
        yield prefix, np.array(content)
    elif "torch" in sys.modules and isinstance(content, sys.modules["torch"].Tensor):
        yield prefix, content.detach().clone().contiguous()  # safetensors wants no shared memory


def _save(tensors: dict[str, Any], output: Path) -> None:
    import numpy as np

    aside = output.with_name(f".{output.name}.{os.getpid()}")
    arrays = {name: tensor for name, tensor in sorted(tensors.items()) if isinstance(tensor, np.ndarray)}
    if len(arrays) == len(tensors):  # without torch, which takes seconds to import
        from safetensors.numpy import save_file

        save_file(arrays, aside)
    else:
        import torch
        from safetensors.torch import save_file as save_tensors

        save_tensors({name: torch.as_tensor(tensor) for name, tensor in sorted(tensors.items())}, aside)
    os.replace(aside, output)
