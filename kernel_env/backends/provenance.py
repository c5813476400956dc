"""Who did the work? Watches one forward from inside of the candidate's process: launches of its own kernels, and torch operators.

It detects and does not guarantee: a program that looks for it can behave for as long as it watches. What it finds is a word of the
candidate's process, and the referee uses it against the candidate only.

`Provenance.traced` counts launches of own kernels and torch operators; `ablated` replaces what own kernels compute, and if the
output is the same then, they are decoys.

Own kernels are functions of extensions that `load_inline` or `load` returned, operators that such an extension registered in C++,
and `@triton.jit` functions. Imported before any candidate's code, and by runners only.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
import secrets
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernel_env.backends import doors
from kernel_env.backends.ablation import differs, disturb, fill, is_copy, nudge, of_other_numbers, other, replaced, same, tensors
from kernel_env.backends.events import TORCHS, TORCHS_NAMES, Span, computing, hidden, on_threads, profiled, sequence
from kernel_env.backends.interpreter import grid_of
from kernel_env.backends.reach import Reach
from kernel_env.backends.triton_names import is_tritons, may_be_given, names_python
from kernel_env.checks.provenance import FILLS, GLUE, VIEWS

_BODIES = {
    name: torch._C._dispatch_dump(name) for name in TORCHS if name.startswith("aten::") and name[6:].partition(".")[0] in GLUE
}
"""What runs for the operators that may take part under every policy."""
_PYTHON = re.compile(r"^(CPU|CUDA|\w*Composite\w*|CatchAll)\b[^\n]* :: \(none\) \[ boxed \]$", re.MULTILINE)
"""Of an operator's description: its body is a Python function, or another whose arguments are not known."""

_CLASSES = "__torch__.torch.classes."
_TORCHS_CLASSES = frozenset(str(s.arguments[0].type) for s in torch._C._jit_get_custom_class_schemas())  # type: ignore[attr-defined]
_ScriptMethod: Any = torch._C.ScriptMethod
_call_script_method = _ScriptMethod.__call__


def _derived(kind: type) -> Iterator[type]:
    inner: type
    for inner in kind.__subclasses__():
        yield inner
        yield from _derived(inner)


_MODULES = {id(kind): kind for kind in _derived(torch.nn.Module)}
"""Torch's own classes of modules."""
_WATCHED: weakref.WeakSet[Callable[..., Any]] = weakref.WeakSet()
"""Functions of ours that stand for an extension's."""
_UNFILLED = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})
_RUNS: dict[type, tuple[Callable[..., Any], Callable[..., Any]]] = {}
"""By class of kernels: Triton's function that launches one, and what stands in its place. Of several programs in one process the
last one is watched."""


class Provenance:
    """One program's. Idle (100 ns a launch) but for `traced` and `ablated`."""

    def __init__(self) -> None:
        self.launches = 0
        self._traced_launches = 0
        self.given_python = False
        """Whether a Triton kernel was given, or names, a Python object, whose methods the interpreter would run."""
        self.given_function = False
        """Whether an extension was given a Python function, or an object of torch's, which may do all of its work."""
        self.operators: dict[str, int] = {}
        """Torch operators that ran in the traced forward, and how often."""
        self.hidden: set[str] = set()
        """Those among them that were kept from the trace, and that torch's profiler saw all the same."""
        self.reaches = True
        """Whether something that an own kernel computed may be in the output of the traced forward."""
        self.nudged = False
        """Whether a forward was `ablated` in which results were nudged, and some were."""
        self._reach: Reach | None = None
        """While a forward is traced."""
        self._ours = secrets.token_hex(8)
        """What our own work is called in the profiler's events."""
        self._launched = secrets.token_hex(8)
        """... and the launch of a kernel."""
        self._worked: dict[int, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = {}
        """Kernels that computed something, with their last arguments."""
        self._works: bool | None = None
        """Whether one did, where it is known."""
        self._unseen: set[int] = set()
        """Kernels that take and return no tensor: they are given addresses."""
        self._registered: set[str] = set()
        """Operators that extensions registered."""
        self._watching = False
        self._ablating: Literal["", "other", "disturbed", "nudged", "last"] = ""
        self._spared = 0
        """So many launches are still to be left as they are."""
        self._inside: _Inside | None = None
        doors.switched.clear()

    # ---------------------------------------------------------- what is watched

    def loaded(self, module: ModuleType | None) -> None:
        """An extension was loaded: its functions, methods of its classes (if it is a `module`) and operators are watched from now
        on."""
        registered = set(torch._C._dispatch_get_all_op_names()) - TORCHS
        for name in registered - self._registered:
            self._composite(name)
        self._registered |= registered
        self._script_methods()
        if module is not None:
            self._functions(module)

    def _functions(self, module: ModuleType) -> None:
        for name, value in list(vars(module).items()):
            if inspect.isclass(value):
                self._methods(value)
            elif isinstance(value, ModuleType) and value.__name__ == f"{module.__name__}.{name}":
                self._functions(value)
            elif inspect.isroutine(value) and not name.startswith("__"):
                setattr(module, name, _Function(self._function(value)))

    def _methods(self, kind: type) -> None:
        for name, value in list(vars(kind).items()):
            if name.startswith("_") and name != "__call__":
                continue
            if inspect.isclass(value):  # in pybind11 a class may be another's scope
                if value.__qualname__.startswith(f"{kind.__qualname__}."):
                    self._methods(value)
            elif isinstance(value, staticmethod):
                setattr(kind, name, staticmethod(self._function(value.__func__)))
            elif callable(value):
                setattr(kind, name, self._function(value))

    def _function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            launch = functools.partial(self._launch, function, arguments, named, id(function))
            return launch() if self._watching else function(*arguments, **named)

        _WATCHED.add(call)
        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            with contextlib.suppress(AttributeError, TypeError):
                setattr(call, name, getattr(function, name))
        return call

    def _composite(self, name: str) -> None:
        """An operator that was defined together with its function is run before any dispatch mode is asked: watched where Python
        calls it."""
        if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"):
            return
        namespace, _, rest = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), rest.partition(".")[0], None)
        for callee in (packet, getattr(packet, rest.partition(".")[2] or "default", None)):
            if callee is not None:
                callee._op = self._operator(name, callee._op)

    def _operator(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Its body may have become a function in Python since, which is no kernel."""
        launch = self._function(function)

        def call(*arguments: Any, **named: Any) -> Any:
            is_python = self._watching and _PYTHON.search(torch._C._dispatch_dump(name))
            return (function if is_python else launch)(*arguments, **named)

        return call

    def _script_methods(self) -> None:
        """Methods of classes that an extension registered with torch."""

        def call(method: Any, *arguments: Any, **named: Any) -> Any:
            if self._watching and _is_own_class(str(method.schema.arguments[0].type)):
                launch = functools.partial(_call_script_method, method)
                return self._launch(launch, arguments, named, hash(str(method.schema)))
            return _call_script_method(method, *arguments, **named)

        _ScriptMethod.__call__ = call

    def triton(self, kind: type) -> None:
        """Watch launches of every kernel of this class (`JITFunction`, `InterpretedFunction`)."""
        now = kind.run  # type: ignore[attr-defined]
        run, ours = _RUNS.get(kind, (now, now))
        self.given_python |= now is not ours or not is_tritons(run)

        @functools.wraps(run)
        def watched(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
            if self._watching:
                grid = grid_of(kernel, grid, arguments, named)  # a function of the program's own: no part of the launch
                given = (*arguments, *named.values())
                self.given_python |= not all(_may_be_given(value, kind) for value in given) or _names_python((kernel, *given), kind)
                launch = functools.partial(run, kernel, grid=grid, warmup=warmup)
                return self._launch(launch, arguments, named, id(kernel), calls_torch=False)
            return run(kernel, *arguments, grid=grid, warmup=warmup, **named)

        kind.run = watched  # type: ignore[attr-defined]
        _RUNS[kind] = run, watched

    # ---------------------------------------------------------- watching

    def traced(self, forward: Callable[[], Any]) -> Any:
        """Run one forward as it is, and note what runs."""
        self.launches, self.operators, self._worked, self._works = 0, {}, {}, None
        spans: list[Span] = []
        with doors.noted() as by_doors, profiled(spans):
            with torch.profiler.record_function(self._ours):
                pass  # so that this thread can be told from others
            self._reach = Reach()
            result = self._watched(forward)
        self.reaches, self._reach = self._reach.reaches(result), None
        self._traced_launches = self.launches
        here = {span.thread for span in spans if span.name == self._ours}
        openly, unseen = on_threads(spans, here, self._launched)
        self.hidden = unseen.union(hidden(sequence(span for span in spans if span.thread in here), self._ours))
        self.hidden.update(filter(None, (computing(name.partition(".")[0]) for name in by_doors & TORCHS)))
        if not here:
            self.hidden.add("whatever ran before torch's profiler was begun anew")
        for name in openly:
            self.operators[name] = self.operators.get(name, 0) + 1
        if self.given_python:
            self.hidden.add("what Python objects that a Triton kernel is given or names may call")
        if self.given_function:
            self.hidden.add("what a Python function, or an object of torch's, that an extension is given may call")
        self.hidden.update(f"whatever ran after {name} was called" for name in doors.switched)
        own = (name for name in torch._C._dispatch_get_all_op_names() if name not in TORCHS)
        self.hidden.update(f"{name}, which bears a name of torch's" for name in own if name.partition(".")[0] in TORCHS_NAMES)
        anew = (name for name, body in _BODIES.items() if torch._C._dispatch_dump(name) != body)
        self.hidden.update(f"{name}, which was given another body" for name in anew)
        return result

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Our own work, which neither the trace nor the profiler takes for the candidate's."""
        with (
            torch._C._DisableTorchDispatch(),
            torch._C.DisableTorchFunctionSubclass(),
            torch.profiler.record_function(self._ours),
        ):
            yield

    def ablated(self, forward: Callable[[], Any], how: Literal["other", "disturbed", "nudged", "last"]) -> Any:
        """Run one forward in which whatever an own kernel computes is replaced: by what it computes of `other` numbers (which an
        honest program can go on with), or by its own numbers, `disturbed` or hardly larger (`nudged`). Only the `last` launch of
        those that the trace saw may be disturbed, and any after it."""
        self._ablating, self._spared = how, self._traced_launches - 1 if how == "last" else 0
        try:
            return self._watched(forward)
        finally:
            self._ablating = ""

    def _watched(self, forward: Callable[[], Any]) -> Any:
        self._watching = True
        try:
            with _Trace(self):
                return forward()
        finally:
            self._watching = False

    def works(self) -> bool:
        """Whether a launch of the traced forward computed something of its own: not only what torch's operators gave it, no copy of
        an argument, and not the same for other numbers. Calls kernels again, with other numbers in their arguments."""
        if self._works is None:
            self._works = any(differs(*seen) for seen in self._worked.values())
        return self._works

    # ---------------------------------------------------------- launches

    def _launch(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any], key: int, *, calls_torch: bool = True
    ) -> Any:
        self.launches += 1
        self.given_function |= calls_torch and any(map(_calls_python, (*arguments, *named.values())))
        self._watching = False  # what an extension's function calls is part of this launch
        try:
            with self._aside():
                given = list(tensors((arguments, named)))
                if self._ablating == "other" and given:
                    with contextlib.suppress(Exception):  # a kernel that refuses such numbers is disturbed instead
                        return of_other_numbers(function, arguments, named)
                before = [tensor.clone() for tensor in given]
            outer, self._inside = self._inside, _Inside(given, before) if calls_torch else None
            try:
                if self._ablating and not given and key in self._unseen and not self._spared:
                    return None
                with torch.profiler.record_function(self._launched):
                    result = function(*arguments, **named)
            finally:
                inside, self._inside = self._inside, outer
            with self._aside():
                changed = [t for t, old in zip(given, before, strict=True) if not same(t, old)]
                if self._spared > 0:
                    self._spared -= 1
                    return result
                if self._ablating:
                    made = {t.data_ptr(): t for t in (*tensors(result), *changed)}.values()
                    if self._ablating == "nudged":
                        self.nudged |= sum(map(nudge, made)) > 0  # all of them
                        return result
                    for tensor in made:
                        disturb(tensor)
                    return other(result)
                outputs = [*tensors(result), *changed]
                if self._reach is not None:
                    self._reach.launched(outputs)
                if not given and result is None:
                    self._unseen.add(key)
                copies = [is_copy(t, before) for t in outputs]
                if (
                    inside is None
                    or inside.own_work
                    or not outputs
                    or (all(copies) and not inside.computed)  # a relu of positive numbers; `works` tells
                    or not all(copy or inside.is_torchs(t) for t, copy in zip(outputs, copies, strict=True))
                ):
                    old = dict(zip(map(id, given), before, strict=True))
                    arguments, named = replaced((arguments, named), lambda t: old[id(t)])
                    self._worked.setdefault(key, (function, arguments, named))
                return result
        finally:
            self._watching = True


class _Function:
    """A function of an extension's, which is no method where it is put into a class, as none in C is."""

    def __init__(self, call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, call)
        del self.__wrapped__  # type: ignore[attr-defined]
        self._call = call

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._call(*arguments, **named)


class _Inside:
    """What torch's operators did during one launch, and whether someone else computed something too."""

    def __init__(self, given: Sequence[torch.Tensor], copies: Sequence[torch.Tensor]) -> None:
        self._copies = copies
        self.own_work = self.computed = False
        self._least = max((tensor.numel() for tensor in given), default=1) / 100
        self._known = {_storage(tensor) for tensor in given}
        self._made: dict[int, tuple[torch.Tensor, torch.Tensor, bool]] = {}
        """By address: a result, a copy of it at that time, and whether an operator computed it."""

    def before(self, given: Any) -> None:
        for tensor in tensors(given):
            _, copy, _ = self._made.get(tensor.data_ptr(), (None, None, False))
            written = copy is not None and copy.shape == tensor.shape and not same(tensor, copy)
            foreign = _storage(tensor) not in self._known and tensor.dim() and tensor.numel() > self._least
            if (written or foreign) and not is_copy(tensor, self._copies):  # someone else's memory; but a few numbers are no work
                self.own_work = True

    def after(self, made: Any, computed: bool) -> None:
        self.computed |= computed
        for tensor in tensors(made):
            self._known.add(_storage(tensor))
            self._made[tensor.data_ptr()] = (tensor, tensor.clone(), computed)

    def is_torchs(self, output: torch.Tensor) -> bool:
        """Whether an operator computed these numbers, wherever they lie by now."""
        return any(computed and is_copy(output, (copy,)) for _, copy, computed in self._made.values())


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator that reaches torch's dispatcher, whether Python or an extension called it."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operator imports all of torch.compile: 2.5 s in each runner

    def __init__(self, provenance: Provenance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._provenance = provenance

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        provenance, kwargs = self._provenance, kwargs or {}
        schema = str(func._schema.name)
        namespace, _, name = schema.partition("::")
        name = name if namespace == "aten" else schema
        if namespace == "profiler":  # a range's begin and end
            return func(*args, **kwargs)
        if func.name() not in TORCHS:
            function = functools.partial(self._own, func)
            is_python = bool(_PYTHON.search(torch._C._dispatch_dump(func.name())))
            if is_python or (func.name() in provenance._registered and not provenance._watching):
                return function(*args, **kwargs)  # its body is the candidate's Python, or part of a launch
            if func.name() in provenance._registered:
                return provenance._launch(function, args, kwargs, id(func))
            name = func.name()  # of another library
        inside = provenance._inside
        if provenance._ablating:
            result = func(*args, **kwargs)
            if name in _UNFILLED and inside is None and provenance._ablating != "nudged":
                fill(result)  # a kernel that writes there by address alone is seen by what stays
            return result
        if inside is None:
            if provenance._watching or name not in GLUE:  # Triton's interpreter copies what it is given and back
                provenance.operators[name] = provenance.operators.get(name, 0) + 1
            result = func(*args, **kwargs)
            if provenance._reach is not None and provenance._watching:
                provenance._reach.operated((args, kwargs), result, writes=func._schema.is_mutable)
            return result
        provenance.operators[name] = provenance.operators.get(name, 0) + 1
        with provenance._aside():
            inside.before((args, kwargs))
        result = func(*args, **kwargs)
        with provenance._aside():
            inside.after(result, name not in VIEWS and name not in FILLS)
        return result

    def _own(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Call an operator that an extension registered, so that what it calls is traced as well."""
        device = next((tensor.device.type for tensor in tensors((args, kwargs))), "cpu").upper()
        if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(func.name(), device):
            return func(*args, **kwargs)
        with self:
            return func.redispatch(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, device)), *args, **kwargs)


def _calls_python(value: Any) -> bool:
    """Whether an extension that is given it may call a function in Python, or a method of torch's that makes no event (packed
    weights have such). Objects of extensions' own classes are theirs, and what torch's modules do is traced."""
    if isinstance(value, (tuple, list)):
        return any(map(_calls_python, value))
    if isinstance(value, dict):
        return any(map(_calls_python, value.values()))
    if isinstance(value, torch._C.ScriptObject):
        return not _is_own_class(str(value._type()))
    if not callable(value):
        return False
    if id(type(value)) in _MODULES:
        return "forward" in vars(value)
    call = next((vars(kind)["__call__"] for kind in type(value).__mro__ if "__call__" in vars(kind)), None)
    return type(call) is not FunctionType or call not in _WATCHED


def _is_own_class(name: str) -> bool:
    """Whether a class of torch's scripts is one that an extension registered."""
    return name.startswith(_CLASSES) and name not in _TORCHS_CLASSES


def _names_python(values: Iterable[Any], kind: type) -> bool:
    """Of those among them that are Triton's kernels."""
    try:
        return any(names_python(value, kind) for value in values if isinstance(value, kind))
    except Exception:  # noqa: BLE001 - what cannot be read cannot be run either
        return True


def _may_be_given(value: Any, kind: type) -> bool:
    try:
        return may_be_given(value, kind)
    except Exception:  # noqa: BLE001 - the same
        return False
