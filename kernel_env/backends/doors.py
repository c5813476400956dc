"""Ways from Python to the body of a torch operator on which torch asks neither a dispatch mode nor its profiler.

They are an operator's redispatch, kernels that were taken out of the dispatcher, and the function of an overload that is called
with a dispatch key. Torch uses none of them in eager mode, but for operators that were registered in Python. And switches after
which the profiler says less, or fusers run operators under names of their own: whoever has used one of them, on whatever thread
and however long ago, may do anything unseen; so may whoever listens to what the interpreter does, for that calls it within our own
work. All are watched from the import of this module on, which has to come before any candidate's.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

_noting: list[set[str]] = []
switched: set[str] = set()
"""Switches that were used, by their names."""
_SWITCHES = {
    "_autograd._enable_record_function": False, "_autograd._toggle_collection_dynamic": False, "_autograd._clear_callbacks": None,
    "_jit_set_llga_enabled": True, "_jit_override_can_fuse_on_cpu": True, "_jit_override_can_fuse_on_cpu_legacy": True,
}  # fmt: skip
"""Functions of `torch._C`, and the first argument that matters (None is any)."""
_PACKS = re.compile("prepack|_cell_params")
_LISTENING = frozenset({"sys.setprofile", "sys.settrace", "sys.addaudithook", "sys.monitoring.register_callback"})
"""Events for auditors, which C and ctypes cannot avoid either."""


@contextlib.contextmanager
def noted() -> Iterator[set[str]]:
    """The operators, with their overloads, that are called in such a way meanwhile, on any thread."""
    seen: set[str] = set()
    _noting.append(seen)
    try:
        yield seen
    finally:
        _noting.remove(seen)


def _note(name: str) -> None:
    for seen in _noting:
        seen.add(name)


def _watch() -> None:
    c: Any = torch._C
    _watch_method(c._DispatchOperatorHandle, "redispatch_boxed", _name)
    _watch_method(c._SafeKernelFunction, "call_boxed", lambda kernel: _name(kernel.op_handle))
    found, found_any = c._get_operation_overload, c._jit_get_operation

    def get_operation_overload(name: str, overload: str) -> Any:
        made = found(name, overload)
        noting = made and _noting_calls(made[1], f"{name}.{overload}" if overload else name)
        return made and (_packing(made[0], name), noting, *made[2:])

    def get_operation(name: str) -> Any:
        operation, *rest = found_any(name)
        return _packing(operation, name), *rest

    c._get_operation_overload, c._jit_get_operation = get_operation_overload, get_operation
    for namespace in vars(torch.ops).values():
        for packet in vars(namespace).values() if hasattr(namespace, "__dict__") else ():
            for overload in vars(packet).values() if isinstance(packet, OpOverloadPacket) else ():
                if isinstance(overload, OpOverload):  # of those that torch itself has made by now
                    overload._op_dk = _noting_calls(overload._op_dk, overload._name)


def _packing(body: Any, name: str) -> Any:
    """Weights that were packed have functions that an extension can call by their address, without any event."""
    return _telling(body, name, None) if body and _PACKS.search(name.partition("::")[2]) else body


def _watch_switches() -> None:
    for path, matters in _SWITCHES.items():
        home, _, name = path.rpartition(".")
        body = getattr(getattr(torch._C, home) if home else torch._C, name, None)
        if body is not None:
            told = _telling(body, name.strip("_"), matters)
            for module in (torch._C, torch._C._autograd, torch.autograd, torch.autograd.profiler):
                if getattr(module, name, None) is body:
                    setattr(module, name, told)


def _telling(body: Any, name: str, matters: bool | None) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        if matters is None or bool(next(iter((*arguments, *named.values())), matters)) is matters:
            switched.add(name)
        return body(*arguments, **named)

    return call


def _watch_method(kind: Any, method: str, name: Callable[[Any], str]) -> None:
    body = getattr(kind, method)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if _noting:
            _note(name(self))
        return body(self, *arguments, **named)

    setattr(kind, method, call)


def _noting_calls(body: Any, name: str) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        _note(name)
        return body(*arguments, **named)

    return call


def _name(handle: Any) -> str:
    schema = handle.schema()
    return f"{schema.name}.{schema.overload_name}" if schema.overload_name else str(schema.name)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _LISTENING:
        switched.add(event)


_watch()
_watch_switches()
sys.addaudithook(_hear)
