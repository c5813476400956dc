"""What the names in a Triton kernel stand for at the time of a launch: something of Triton's, or Python that the interpreter would
run and no GPU could.

`checks.static` reads the source and says so early. What a name stands for is known here only: one that no statement binds, a
default of a parameter, an attribute that was put into a module of Triton's. Triton's own things are known by what they are: its
modules, classes and code as they were when this module was imported, before any candidate's; names and files say nothing, for a
program writes them. Functions under `triton.constexpr_function` are Python on a GPU too, given constants; they may call Python's
own functions and each other. `math` is good for constants anywhere.
"""

from __future__ import annotations

import builtins
import collections
import contextlib
import dis
import enum
import functools
import gc
import importlib
import math
import sys
import types
from collections.abc import Iterable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from kernel_env.checks.static import NOT_COMPILED

for _name in ("language.extra.libdevice", "language.semantic", "runtime.interpreter", "tools.tensor_descriptor"):
    with contextlib.suppress(Exception):  # an optional part of the installation
        importlib.import_module(f"triton.{_name}")

_PLAIN = frozenset(
    {type(None), bool, int, float, complex, str, bytes, slice, type(Ellipsis), torch.dtype, *np.sctypeDict.values()}
)  # fmt: skip
_IN_C = (BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType, types.GetSetDescriptorType)
_TENSORS = frozenset({torch.Tensor, torch.nn.Parameter})
"""Exactly these: a class derived from one of them has methods of its own."""
_NO_CONSTANTS = NOT_COMPILED - {"type", "object", "super", "map", "filter", "dir"}
_BUILTINS = {id(value): name for name, value in vars(builtins).items()}
_HOMES = ("triton", "kernel_env.backends")
"""Whose functions a kernel may call: the second one's are those that stand for functions of a GPU."""
_GONE = object()


def _parts(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)


class _Tritons:
    """What is Triton's, by identity. Kept alive here, so that no other thing comes to have its address."""

    def __init__(self) -> None:
        names = {name for name in sys.modules if any(name == home or name.startswith(f"{home}.") for home in _HOMES)}
        modules = [sys.modules[name] for name in names if sys.modules[name] is not None]
        with contextlib.suppress(KeyError, AttributeError):  # some are two objects: by import, and as an attribute
            extra = sys.modules["triton"].language.extra
            modules += [extra.libdevice, extra.cuda, extra.hip, extra.cuda.libdevice, extra.hip.libdevice]
        self._modules = {id(module): module for module in modules}
        self._scopes = {id(vars(module)) for module in modules}
        things = gc.get_objects()
        functions = [thing for thing in things if type(thing) is FunctionType and id(thing.__globals__) in self._scopes]
        self._code = {id(part): part for function in functions for part in _parts(function.__code__)}
        self._classes = {id(c): c for c in things if issubclass(type(c), type) and vars(c).get("__module__") in names}
        within = [module for module in modules if module.__name__.startswith(("triton.language", "triton.runtime.interpreter"))]
        scopes = {module.__name__ for module in within}
        owners = [np, *within, *(c for c in self._classes.values() if c.__module__ in scopes)]
        self._owners = [(owner, {name: (value, _code_of(value)) for name, value in vars(owner).items()}) for owner in owners]

    def has(self, value: ModuleType | type) -> bool:
        return id(value) in self._modules or id(value) in self._classes

    def wrote(self, function: FunctionType) -> bool:
        return id(function.__code__) in self._code and id(function.__globals__) in self._scopes

    def exchanged(self) -> Iterator[Any]:
        """What was put in the place of a function of the interpreter's, the language's or numpy's, or into one of their classes."""
        for owner, then in self._owners:
            for name, value in list(vars(owner).items()):
                was, code = then.get(name, (_GONE, None))
                if was is value and _code_of(value) is code:
                    continue
                inside = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
                known = was is _GONE and isinstance(owner, ModuleType)  # seen where a kernel names it
                if callable(inside) and not known and name != "run" and not isinstance(inside, _IN_C):
                    yield inside


def _code_of(value: Any) -> CodeType | None:
    value = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    return value.__code__ if isinstance(value, FunctionType) else None


_TRITONS = _Tritons()


def is_tritons(function: Any) -> bool:
    return type(function) is FunctionType and _TRITONS.wrote(function)


def names_python(kernel: Any, kind: type) -> bool:
    """Whether a kernel, of class `kind`, would have the interpreter run Python of the program's own, or of another library."""
    look = _Look(kind)
    return look.foreign(kernel) or any(map(look.foreign, _TRITONS.exchanged()))


def may_be_given(value: Any, kind: type) -> bool:
    """Whether it may be an argument of a Triton kernel on a GPU, and has no methods of the program's own."""
    return not _Look(kind, given=True).foreign(value)


class _Look:
    """One search. `given`: among arguments, which may be tensors."""

    def __init__(self, kind: type, *, given: bool = False) -> None:
        self._kind = kind
        self._given = given
        self._seen: dict[int, Any] = {}

    def foreign(self, value: Any, constant: bool = False) -> bool:
        """`constant`: it is used where Python runs on a GPU, too."""
        what = type(value)
        if what in _PLAIN or (self._given and what in _TENSORS) or id(value) in self._seen:
            return False
        self._seen[id(value)] = value
        if what in (tuple, list, set, frozenset) or _is_record(what):
            return self._any(value, constant)
        if what is dict:
            return self._any([*value, *value.values()], constant)
        if what is self._kind:
            return self._kernel(value)
        if what is ModuleType:
            return value is not math and not _TRITONS.has(value)
        if what is FunctionType:
            if _TRITONS.wrote(value):
                return self._any(_held(value), constant)
            return not constant or self._reads(value, constant=True)
        if id(value) in _BUILTINS:
            return self._given or _BUILTINS[id(value)] in (_NO_CONSTANTS if constant else NOT_COMPILED)
        if what is BuiltinFunctionType:
            return value.__self__ is not math
        if what is object:  # nothing but itself
            return self._given
        if what is functools.partial:
            return self._any([value.func, *value.args, *value.keywords.values()], constant)
        if issubclass(what, type):
            return not _TRITONS.has(value)
        if not _TRITONS.has(what):
            return not _is_enumerated(value)
        function = getattr(value, "fn", None)
        if type(function) is FunctionType and not _TRITONS.wrote(function):
            return self._reads(function, constant=True)
        return self._any(getattr(value, "__dict__", {}).values() if function is None else [function], constant)

    def _any(self, values: Iterable[Any], constant: bool) -> bool:
        return any(self.foreign(value, constant) for value in values)

    def _kernel(self, kernel: Any) -> bool:
        """The interpreter runs a function that it makes from the source; a reduction calls the one that was decorated."""
        own = vars(kernel)
        if own.get("pre_run_hooks") or any(type(vars(self._kind).get(name)) is FunctionType for name in own):
            return True
        functions = [kernel.fn]
        if hasattr(self._kind, "rewrite"):
            functions.append(kernel.rewrite())
            if kernel.rewriter.fn is not kernel.fn or type(kernel.rewritten_fn) is not dict:
                return True
        return any(self._reads(function, constant=False) for function in functions)

    def _reads(self, function: Any, *, constant: bool) -> bool:
        if type(function) is not FunctionType or self._any(_held(function), constant):
            return True
        for path in _paths(function.__code__):
            if not path[0]:  # an import, or an attribute that leads out
                return True
            value = function.__globals__.get(path[0], getattr(function, "__builtins__", {}).get(path[0], _GONE))
            if value is _GONE:
                continue  # a mistake, which shows when it is reached
            if self.foreign(value, constant):
                return True
            for attribute in path[1:]:
                if not isinstance(value, ModuleType):
                    break
                value = getattr(value, attribute, None)
                if self.foreign(value, constant):
                    return True
        return False


def _held(function: FunctionType) -> list[Any]:
    """What it has besides its code and its names."""
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not bound yet
            held.append(cell.cell_contents)
    return held


def _is_record(what: type) -> bool:
    """Whether it is a class of named tuples, and has no function that `namedtuple` did not make."""
    if what.__mro__ != (what, tuple, object) or "_fields" not in vars(what):
        return False
    made = vars(collections.namedtuple("made", what._fields))  # type: ignore[attr-defined]
    return all(name in made and _code_of(value) == _code_of(made[name]) for name, value in vars(what).items() if callable(value))


def _is_enumerated(value: Any) -> bool:
    """Whether it is a member of an enumeration that has no function of its own."""
    what = type(value)
    if not isinstance(value, enum.Enum) or type(what) is not enum.EnumMeta:
        return False
    functions = [getattr(item, "__func__", item) for c in what.__mro__ for item in vars(c).values() if not isinstance(item, c)]
    return all(f.__globals__ is vars(enum) for f in functions if type(f) is FunctionType) and type(value.value) in _PLAIN


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
