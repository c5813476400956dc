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
from collections.abc import Iterable, Iterator
from operator import attrgetter, is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from kernel_env.backends import bfloat, binding, interpreter
from kernel_env.checks.static import NOT_COMPILED

for _name in ("language.extra.libdevice", "language.semantic", "runtime.interpreter", "tools.tensor_descriptor"):
    with contextlib.suppress(Exception):  # an optional part of the installation
        importlib.import_module(f"triton.{_name}")


def _by_id(things: Iterable[Any]) -> dict[int, Any]:
    """For `id(thing) in`: a candidate's class may say of itself that it equals whatever it is asked about."""
    return {id(thing): thing for thing in things}


_PLAIN = _by_id(
    (type(None), bool, int, float, complex, str, bytes, slice, type(Ellipsis), torch.dtype, *np.sctypeDict.values())
)  # fmt: skip
_ITEMS = _by_id((tuple, list, set, frozenset, torch.Size))
_TENSORS = _by_id((torch.Tensor, torch.nn.Parameter))
"""Exactly these: a class derived from one of them has methods of its own."""
_NEVER_CALLED = NOT_COMPILED - {"type", "object", "super", "map", "filter", "dir"}
"""Built-in functions that functions of constants may not call either."""
_BUILTINS = {id(value): name for name, value in vars(builtins).items()}
_HOMES = ("triton", *(module.__name__ for module in (interpreter, bfloat, binding)))
"""Whose functions a kernel may call: the last three's stand for functions of a GPU."""
_LAUNCHING = "kernel_env.backends.provenance"
_ENUMS = _by_id(value for value in vars(enum).values() if type(value) is enum.EnumMeta)
_OF_ENUMS = {
    id(value): (value, getattr(getattr(value, "fget", None) or getattr(value, "__func__", value), "__code__", None))
    for owner in (enum, object, *_PLAIN.values(), *_ENUMS.values())
    for value in vars(owner).values()
    if not isinstance(value, type)
}
"""What a class of an enumeration has of its bases'."""
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
        self._modules = _by_id(modules)
        self._scopes = {id(vars(module)) for module in modules}
        things = gc.get_objects()
        functions = [thing for thing in things if type(thing) is FunctionType and id(thing.__globals__) in self._scopes]
        self._code = _by_id(part for function in functions for part in _parts(function.__code__))
        self._classes = _by_id(c for c in things if issubclass(type(c), type) and vars(c).get("__module__") in names)
        inner = ("triton.language", "triton.runtime.interpreter", *_HOMES[1:])
        within = [module for module in modules if module.__name__.startswith(inner)]
        scopes, homes = {id(vars(module)) for module in within}, {module.__name__ for module in within}
        near = {id(c) for c in self._classes.values() if c.__module__ in homes}
        owners = [np, *within, torch.Tensor, torch.nn.Parameter, *(c for c in self._classes.values() if id(c) in near)]
        self._owners = [_Owner(owner) for owner in owners]
        self._others = {id(c): _Owner(c) for c in self._classes.values() if id(c) not in near}
        self._functions = [function for function in functions if id(function.__globals__) in scopes]
        self._functions += [value for value in vars(np).values() if type(value) is FunctionType]
        self._bodies = [list(map(read, self._functions)) for read in _BODY]
        cells = _by_id(cell for f in self._functions for cell in f.__closure__ or () if _content(cell) is not _GONE)
        self._cells: list[CellType] = list(cells.values())
        self._contents = list(map(_content, self._cells))
        wrappers = [
            thing for thing in things if id(type(thing)) in self._classes and type(getattr(thing, "fn", None)) is FunctionType
        ]
        with contextlib.suppress(KeyError, AttributeError):  # where a GPU is there, it has none
            wrappers.append(sys.modules["triton.runtime.interpreter"].InterpretedFunction(_content))
        self._usual = {(id(type(thing)), *_kept(name, held)) for thing in wrappers for name, held in vars(thing).items()}

    def has(self, value: ModuleType | type) -> bool:
        return id(value) in self._modules or id(value) in self._classes

    def wrote(self, function: FunctionType) -> bool:
        return id(function.__code__) in self._code and id(function.__globals__) in self._scopes

    def exchanged(self) -> Iterator[Any]:
        """What was put in the place of a function of the interpreter's, the language's or numpy's, into what such a function holds,
        or into a class of theirs."""
        for owner in self._owners:
            yield from owner.exchanged()
        for read, was in zip(_BODY, self._bodies, strict=True):
            if not all(map(is_, map(read, self._functions), was)):
                yield from (f for f, then in zip(self._functions, was, strict=True) if read(f) is not then)
        if not all(map(is_, map(_CONTENT, self._cells), self._contents)):
            yield from (now for now, was in zip(map(_content, self._cells), self._contents, strict=True) if now is not was)

    def exchanged_in(self, kind: type) -> Iterator[Any]:
        """The same for another class of Triton's, and those that it is derived from."""
        for c in kind.__mro__:
            if id(c) in self._others:
                yield from self._others[id(c)].exchanged(bodies=True)

    def added(self, wrapper: Any) -> list[Any]:
        """What a wrapper of a function has that none of Triton's own has."""
        kind = type(wrapper)
        return [held for name, held in vars(wrapper).items() if (id(kind), *_kept(name, held)) not in self._usual]


def _kept(name: str, held: Any) -> tuple[str, int]:
    return name, 0 if name == "fn" else id(type(held))


class _Owner:
    """A module or class, as it was."""

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._names, self._values = list(vars(owner)), list(vars(owner).values())
        self._bodies = list(map(_code_of, self._values))

    def exchanged(self, *, bodies: bool = False) -> Iterator[Any]:
        now = vars(self._owner)
        same = len(now) == len(self._names) and all(map(is_, now, self._names)) and all(map(is_, now.values(), self._values))
        if same and (not bodies or all(map(is_, map(_code_of, self._values), self._bodies))):
            return
        then = {name: (value, body) for name, value, body in zip(self._names, self._values, self._bodies, strict=True)}
        for name, value in list(now.items()):
            was, body = then.get(name, (_GONE, None))
            if was is value and _code_of(value) is body:
                continue
            inside = _inside(value)
            new = was is _GONE and name != "__getattr__"
            known = new and isinstance(self._owner, ModuleType)  # seen where a kernel names it
            tag = new and id(self._owner) in _TENSORS and not hasattr(torch._C.TensorBase, name)
            inherited = type(self._owner) is type and any(vars(c).get(name) is value for c in self._owner.__mro__[1:])
            if not known and not tag and not inherited and not _launches(name, inside):
                yield inside


_BODY = attrgetter("__code__"), attrgetter("__defaults__")
_CONTENT = attrgetter("cell_contents")


def _inside(value: Any) -> Any:
    """The function of a static method, class method or property that is read only."""
    if type(value) is property and value.fset is None and value.fdel is None:
        return value.fget
    return value.__func__ if type(value) is staticmethod or type(value) is classmethod else value


def _code_of(value: Any) -> CodeType | None:
    value = _inside(value)
    return value.__code__ if type(value) is FunctionType else None


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _GONE


def _launches(name: str, function: Any) -> bool:
    """Whether it is the method that watches launches, which is put in the place of Triton's."""
    watching = sys.modules.get(_LAUNCHING)
    if name != "run" or watching is None or type(function) is not FunctionType:
        return False
    return function.__globals__ is vars(watching) and function.__code__ in set(_parts(watching.Provenance.triton.__code__))


_TRITONS = _Tritons()


def is_tritons(function: Any) -> bool:
    return type(function) is FunctionType and _TRITONS.wrote(function)


def names_python(kernel: Any, kind: type) -> bool:
    """Whether a kernel, of class `kind`, would have the interpreter run Python of the program's own, or of another library."""
    look = _Look(kind)
    return look.foreign(kernel) or any(map(_Look(kind).foreign, _TRITONS.exchanged()))


def may_be_given(value: Any, kind: type) -> bool:
    """Whether it may be an argument of a Triton kernel on a GPU, and has no methods of the program's own."""
    return not _Look(kind, given=True).foreign(value)


class _Look:
    """One search. `given`: among arguments, which may be tensors."""

    def __init__(self, kind: type, *, given: bool = False) -> None:
        self._kind = kind
        self._given = given
        self._seen: dict[tuple[int, bool], Any] = {}

    def foreign(self, value: Any, constant: bool = False) -> bool:
        """`constant`: it is used where Python runs on a GPU, too."""
        what = type(value)
        if id(what) in _PLAIN or (id(value), constant) in self._seen:
            return False
        self._seen[id(value), constant] = value
        if self._given and id(what) in _TENSORS:
            return any(type(name) is not str or hasattr(what, name) or self.foreign(tag) for name, tag in vars(value).items())
        if id(what) in _ITEMS:
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
            return self._given or _BUILTINS[id(value)] in (_NEVER_CALLED if constant else NOT_COMPILED)
        if what is BuiltinFunctionType:
            return value.__self__ is not math
        if what is object:  # nothing but itself
            return self._given
        if what is functools.partial:
            return self._any([value.func, *value.args, *value.keywords.values()], constant)
        if issubclass(what, type):
            return not _TRITONS.has(value) or self._any(_TRITONS.exchanged_in(value), constant)
        if type(what) is enum.EnumMeta:
            return not self._is_enumerated(value)
        if not _TRITONS.has(what):
            return not self._is_record(what) or self._any(value, constant)
        if self._any(_TRITONS.exchanged_in(what), constant=False):
            return True
        own = getattr(value, "__dict__", {})
        function = own.get("fn")
        if type(function) is not FunctionType:
            return self._any(own.values(), constant)
        if self._any(_TRITONS.added(value), constant):
            return True
        return self._any([function], constant) if _TRITONS.wrote(function) else self._reads(function, constant=True)

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
            if self._any(_TRITONS.added(kernel), constant=False):
                return True
        return any(self._reads(function, constant=False) for function in functions)

    def _reads(self, function: Any, *, constant: bool) -> bool:
        if type(function) is not FunctionType or self._any(_held(function), constant):
            return True
        names, others = function.__globals__, getattr(function, "__builtins__", {})
        if not _is_namespace(names) or not _is_namespace(others):
            return True
        for path in _paths(function.__code__):
            if not path[0]:  # an import, or an attribute that leads out
                return True
            value = names.get(path[0], others.get(path[0], _GONE))
            if value is _GONE:
                continue  # a mistake, which shows when it is reached
            if self.foreign(value, constant):
                return True
            for attribute in path[1:]:
                if type(value) is not ModuleType:
                    break
                if not _is_namespace(vars(value)) or "__getattr__" in vars(value):
                    return True
                value = vars(value).get(attribute)
                if self.foreign(value, constant):
                    return True
        return False

    def _is_record(self, what: type) -> bool:
        """Whether it is a class of named tuples, and has no function, or other descriptor, that `namedtuple` did not make."""
        if type(what) is not type:
            return False
        own: Any = vars(what)
        fields = own.get("_fields")
        if what.__bases__ != (tuple,) or type(fields) is not tuple or any(type(field) is not str for field in fields):
            return False
        made = _record(fields)
        for name, value in own.items():
            then, inside = made.get(name), getattr(value, "__func__", value)
            if type(name) is not str:
                return False
            if type(inside) is FunctionType:
                if type(value) is not type(then) or not _is_as_made(inside, getattr(then, "__func__", then)):
                    return False
                if self._any(inside.__defaults__ or (), constant=False):
                    return False
            elif type(value) is not _FIELD and name not in _NOTES and not self._is_data(value):
                return False
        return True

    def _is_enumerated(self, value: Any) -> bool:
        """Whether it is a member of an enumeration that has no function, or other descriptor, of its own."""
        what = type(value)
        for owner in what.__mro__:
            if type(owner) is not enum.EnumMeta and owner is not object and id(owner) not in _PLAIN:
                return False
            for name, item in vars(owner).items():
                known, code = _OF_ENUMS.get(id(item), (_GONE, None))
                if known is item:
                    inside = getattr(item, "fget", None) or getattr(item, "__func__", item)
                    if getattr(inside, "__code__", None) is not code:
                        return False
                elif type(item) is enum.property:  # a member's
                    if item.fget is not None or item.fset is not None or item.fdel is not None:
                        return False
                elif type(name) is not str or (name not in _NOTES and not self._is_data(item)):
                    return False
        return not self._any((held for name, held in vars(value).items() if name != "__objclass__"), constant=False)

    def _is_data(self, value: Any) -> bool:
        """Whether it may lie in a class as what it is: nothing that is called, or bound to what it is read of."""
        what = type(value)
        if what is type:
            return value is object or id(value) in _PLAIN
        data = id(what) in _PLAIN or id(what) in _ITEMS or what is dict or type(what) is enum.EnumMeta
        return data and not self.foreign(value)


_FIELD = type(vars(collections.namedtuple("_Made", "field"))["field"])
_NOTES = frozenset({"__annotations__", "__orig_bases__", "__doc__", "__module__"})
"""Of a class: what nothing reads at a launch."""


def _is_namespace(names: Any) -> bool:
    """Whether nothing answers for it: neither a mapping of the program's own, nor a name."""
    return type(names) is dict and all(type(name) is str for name in names)


@functools.lru_cache(maxsize=256)
def _record(fields: tuple[str, ...]) -> dict[str, Any]:
    return dict(vars(collections.namedtuple("made", fields)))


def _is_as_made(function: FunctionType, then: Any) -> bool:
    """Whether a named tuple's function is what `namedtuple` makes, down to what it holds."""
    if type(then) is not FunctionType or not _same(_held(function, defaults=False), _held(then, defaults=False)):
        return False
    names, code, was = function.__globals__, function.__code__, then.__code__
    if code is was:
        return names is vars(collections) and function.__defaults__ is None
    parts = attrgetter("co_code", "co_names", "co_varnames", "co_consts", "co_freevars", "co_argcount", "co_exceptiontable")
    if not _is_namespace(names) or set(names) != {"_tuple_new", "__builtins__", "__name__"} or not _same(parts(code), parts(was)):
        return False
    return names["_tuple_new"] is tuple.__new__ and type(names["__builtins__"]) is dict and not names["__builtins__"]


def _same(one: Any, other: Any) -> bool:
    """Without asking either of them, unless it is a number, a string or a tuple of such."""
    if one is other or type(one) is not type(other):
        return one is other
    if type(one) in (tuple, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return id(type(one)) in _PLAIN and bool(one == other)


def _held(function: FunctionType, *, defaults: bool = True) -> list[Any]:
    """What it has besides its code and its names."""
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()] if defaults else []
    return held + [content for content in map(_content, function.__closure__ or ()) if content is not _GONE]


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
