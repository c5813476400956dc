"""Ways from Python to the body of a torch operator on which torch asks neither a dispatch mode nor its profiler.

They are an operator's redispatch, kernels that were taken out of the dispatcher, and the function of an overload that is called
with a dispatch key. Torch uses none of them in eager mode, but for operators that were registered in Python. They are watched from
the import of this module on, which has to come before any candidate's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

_noting: list[set[str]] = []


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
    found = c._get_operation_overload

    def get_operation_overload(name: str, overload: str) -> Any:
        made = found(name, overload)
        return made and (made[0], _noting_calls(made[1], f"{name}.{overload}" if overload else name), *made[2:])

    c._get_operation_overload = get_operation_overload
    for namespace in vars(torch.ops).values():
        for packet in vars(namespace).values() if hasattr(namespace, "__dict__") else ():
            for overload in vars(packet).values() if isinstance(packet, OpOverloadPacket) else ():
                if isinstance(overload, OpOverload):  # of those that torch itself has made by now
                    overload._op_dk = _noting_calls(overload._op_dk, overload._name)


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


_watch()
