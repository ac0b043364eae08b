"""The functions of `vosflow.evaluation.kernel` as machine code: compiled once, kept in a file, loaded in milliseconds.

Importing numba and calling one function from its own cache costs half a CPU second in every process: more than scoring
a small dataset takes. So numba only compiles. It gives LLVM's intermediate code, which llvmlite (numba's lower half)
turns into an object file here, and a process that finds that file needs llvmlite alone.

The file's name holds a digest of the kernel's source, the versions of numba and llvmlite, and the processor: when one
of them changes another file is looked for, and made if need be. That takes some seconds, once per machine; `make` does
it ahead. The file lies in __pycache__ beside the source, for whoever uses this checkout, and in the user's cache folder
($XDG_CACHE_HOME/vosflow, by default ~/.cache/vosflow), for the user's other checkouts. Where neither can be written,
each process compiles for itself.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

SOURCE = Path(__file__).with_name("kernel.py")


@functools.cache
def load(name: str) -> Callable[..., int]:
    """A function of the kernel. It takes contiguous arrays and integers, in the order of its parameters.

    It returns an integer and runs without the interpreter's lock. Types are not checked: a wrong one is a crash.
    """
    # numba's functions return a status and take two addresses more: where to put the result, and where an exception.
    # The kernel raises none, so the status is always 0.
    function = ctypes.CFUNCTYPE(ctypes.c_int32)(_engine().get_function_address(name))

    def call(*arguments: np.ndarray | int) -> int:
        result, exception = ctypes.c_int64(), ctypes.c_void_p()
        values = (x.ctypes.data if isinstance(x, np.ndarray) else x for x in arguments)
        function(ctypes.byref(result), ctypes.byref(exception), *map(ctypes.c_int64, values))
        return result.value

    return call


def prepare() -> None:
    """Compile, unless it is done already: so that the first evaluation need not."""
    _engine()


@functools.cache
def _engine() -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(_saved_code() or _compile()))
    engine.finalize_object()
    return engine


def _machine() -> llvm.TargetMachine:
    """This machine, with the options by which numba compiles for it."""
    target = llvm.Target.from_default_triple()
    reloc = "static" if target.name.startswith("x86") else "default"
    cpu, features = _processor()
    return target.create_target_machine(cpu=cpu, features=features, opt=3, reloc=reloc, codemodel="jitdefault")


def _processor() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _compile() -> bytes:
    """Compile the kernel, and save the object file where it is possible."""
    from vosflow.evaluation import kernel

    module = llvm.parse_assembly("")
    for function, types in kernel.ENTRIES.items():
        function.compile(types)
        part = llvm.parse_assembly(function.inspect_llvm(function.signatures[0]))
        # Of each function the linker sees one name; what it calls has been copied into it.
        (entry,) = (f for f in part.functions if not f.is_declaration and f.linkage == llvm.Linkage.external)
        entry.name = function.__name__
        module.link_in(part)
    code = _machine().emit_object(module)
    _save(code)
    return code


def _saved_code() -> bytes | None:
    for path in _places():
        try:
            saved = path.read_bytes()
        except OSError:
            continue
        code, digest = saved[:-32], saved[-32:]
        if hashlib.sha256(code).digest() == digest:  # loading half a file would be a crash
            return code
    return None


def _save(code: bytes) -> None:
    for path in _places():
        aside = path.with_suffix(f".{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(code + hashlib.sha256(code).digest())
            os.replace(aside, path)  # whole or not at all: other processes may be looking
        except OSError:
            continue


def _places() -> tuple[Path, ...]:
    """Where the object file may lie."""
    facts = (*map(importlib.metadata.version, ("numba", "llvmlite")), llvm.get_process_triple(), *_processor())
    digest = hashlib.sha256(SOURCE.read_bytes() + "\n".join(facts).encode()).hexdigest()[:16]
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folders = [SOURCE.parent / "__pycache__"]
    if os.path.isabs(user):  # else the user has no home, as in some containers
        folders.append(Path(user, "vosflow"))
    return tuple(folder / f"kernel.{digest}.o" for folder in folders)
