"""What the names in a Triton kernel stand for at the time of a launch: something of Triton's, or Python that the interpreter would
run and no GPU could.

`checks.static` reads the source and says so early. What a name stands for is known here only: one that no statement binds, a
default of a parameter, an attribute that was put into a module of Triton's. Functions under `triton.constexpr_function` are Python
on a GPU too, given constants; they may call Python's own functions and `math`, and each other.
"""

from __future__ import annotations

import builtins
import dis
import functools
import math
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

_BUILTINS = dict(vars(builtins))
_PLAIN = (bool, int, float, complex, str, bytes, slice, type(Ellipsis), torch.dtype, np.generic)
_HOMES = ("triton", "kernel_env")
"""Packages whose functions a kernel may call: the second one's are those that stand for functions of a GPU."""
_GONE = object()


def names_python(kernel: Any, kind: type) -> bool:
    """Whether a kernel, of class `kind`, would have the interpreter run Python of the program's own, or of another library."""
    return _is_foreign(kernel, kind, set(), constant=False)


def _is_foreign(value: Any, kind: type, seen: set[int], *, constant: bool) -> bool:
    """`constant`: it is used where Python runs on a GPU, too."""
    if value is None or isinstance(value, _PLAIN) or id(value) in seen:
        return False
    seen.add(id(value))
    within = functools.partial(_is_foreign, kind=kind, seen=seen, constant=constant)
    if isinstance(value, (tuple, list, set, frozenset)):
        return any(map(within, value))
    if isinstance(value, dict):
        return any(map(within, value.values()))
    if isinstance(value, kind):
        return bool(getattr(value, "pre_run_hooks", None)) or _reads_foreign(_body(value), kind, seen, constant=False)
    if isinstance(value, ModuleType):
        return _home(value.__name__) not in _HOMES and not (constant and value is math)
    if isinstance(value, FunctionType):
        if _home(value.__globals__.get("__name__")) in _HOMES:
            return False
        return not constant or _reads_foreign(value, kind, seen, constant=True)
    if any(value is known for known in _BUILTINS.values()):
        return False
    if isinstance(value, BuiltinFunctionType):
        return not (constant and value.__self__ is math)
    if isinstance(value, type):
        return _home(value.__module__) not in _HOMES
    if _home(type(value).__module__) not in _HOMES:
        return True
    function = getattr(value, "fn", None)
    if isinstance(function, FunctionType):
        return _reads_foreign(function, kind, seen, constant=True)
    return within(function) or within(getattr(value, "value", None))


def _home(name: Any) -> str:
    return str(name).partition(".")[0]


def _body(kernel: Any) -> Any:
    """The function that the interpreter runs: it is made from the kernel's source."""
    return kernel.rewrite() if hasattr(kernel, "rewrite") else kernel.fn


def _reads_foreign(function: Any, kind: type, seen: set[int], *, constant: bool) -> bool:
    if not isinstance(function, FunctionType):
        return True
    within = functools.partial(_is_foreign, kind=kind, seen=seen, constant=constant)
    given = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        try:
            given.append(cell.cell_contents)
        except ValueError:  # not bound yet
            continue
    if any(map(within, given)):
        return True
    for path in _paths(function.__code__):
        if not path[0]:  # an import, or an attribute that leads out
            return True
        value = function.__globals__.get(path[0], _BUILTINS.get(path[0], vars(builtins).get(path[0], _GONE)))
        if value is _GONE:
            continue  # a mistake, which shows when it is reached
        if within(value):
            return True
        for attribute in path[1:]:
            if not isinstance(value, ModuleType):
                break
            value = getattr(value, attribute, None)
            if within(value):
                return True
    return False


@functools.lru_cache(maxsize=1024)
def _paths(code: CodeType) -> tuple[tuple[str, ...], ...]:
    """The global names that it reads, each with the attributes that are read of it at once; ("",) where it imports something, or
    looks into an object."""
    found: list[tuple[str, ...]] = []
    for part in _parts(code):
        path: tuple[str, ...] = ()
        for step in dis.get_instructions(part):
            if step.opname == "CACHE":
                continue
            if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                name = str(step.argval)
                path = (*path, name) if path else path
                if name.startswith("__") or name == "handle":
                    found.append(("",))
                continue
            if path:
                found.append(path)
            path = (str(step.argval),) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME") else ()
            if step.opname == "IMPORT_NAME":
                found.append(("",))
    return tuple(dict.fromkeys(found))


def _parts(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
