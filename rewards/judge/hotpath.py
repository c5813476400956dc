"""What `forward` does, read from the tree: does its answer depend on the candidate's own kernels, and what does torch compute?

It follows names, and over-estimates what a kernel may have had a part in: a result is called lost only where nothing that forward
returns can hold any of it. What it cannot read (an entry that a function makes, a forward bound by assignment) it does not judge.
Time is linear in the source, but for expressions nested in each other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from rewards.judge.flow import Flow, bindings, names_in, own_argument
from rewards.judge.operators import COMPUTING, METHODS
from rewards.judge.program import Program

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPILERS = ("torch.compile", "torch.jit.", "torch.fx.", "torch._dynamo.optimize")
_HOLDERS = frozenset({"Parameter", "ParameterList", "ParameterDict", "ModuleList", "Identity"})
"""Of `torch.nn`: what computes nothing itself."""
_PLACES = frozenset({"data_ptr", "_version"})
_ABLE = """
    dtype device is_cuda is_cpu is_contiguous is_floating_point is_sparse layout stride requires_grad training float float32 float16
    bfloat16 float64 half double type isinstance available is_available
"""
_ABILITIES = frozenset(_ABLE.split())
"""Words of conditions about what a kernel can take."""


@dataclass(frozen=True)
class HotPath:
    """Facts about the entry class's forward."""

    readable: bool = False
    launches: int = 0
    """Places from which own kernels are called."""
    kept: int = 0
    """Returns that own kernels may have had a part in, ..."""
    lost: int = 0
    """... and those that they cannot have had one in."""
    torch_ops: tuple[str, ...] = ()
    """What torch (or numpy) computes on the way, by name."""
    reference: bool = False
    """Forward is another class's, or calls it."""
    keeps_answers: bool = False
    """It may return what an earlier call left in an attribute."""
    counts_calls: bool = False
    """It behaves by the number of calls so far."""
    keyed: bool = False
    """It looks at where an input lies or how often it was written, not at what is in it."""
    by_condition: bool = False
    """Own kernels have a part only where a condition holds that is not about what they can take."""
    unlaunchable: bool = False
    """There are launches of Triton functions, and all of them lack arguments."""


def hot_path(program: Program) -> HotPath:
    entry = program.classes.get(program.entry)
    if entry is None:
        return HotPath()
    reader = Reader(program, entry)
    forward = reader.flow.methods.get("forward")
    if forward is not None:
        return reader.read(forward)
    inherited = "forward" not in reader.flow.assigned and any(program.dotted(base) != "torch.nn.Module" for base in entry.bases)
    return HotPath(readable=inherited, reference=inherited)


class Reader:
    """Of one entry class."""

    def __init__(self, program: Program, entry: ast.ClassDef) -> None:
        self.program = program
        self.flow = Flow(program, entry)

    def read(self, forward: ast.FunctionDef | ast.AsyncFunctionDef) -> HotPath:
        hot = list(self._hot(forward))
        nodes = [node for function in hot for node in ast.walk(function)]
        returns = [node.value for node in _inside(forward) if isinstance(node, ast.Return) and node.value is not None]
        kept = sum(self.flow.leads(value, forward) for value in returns)
        parameters = {a.arg for a in (*forward.args.posonlyargs, *forward.args.args)} - {own_argument(forward)}
        filled, answers = self._filled(forward), self._answers(forward)
        return HotPath(
            readable=bool(returns),
            launches=sum(isinstance(node, ast.Call) and self.flow.is_kernel(node.func) for node in nodes),
            kept=kept,
            lost=len(returns) - kept,
            torch_ops=tuple(sorted({name for node in nodes if (name := self.torch_op(node))} | self._compiled(hot))),
            reference=any(_calls_super(node) for node in nodes),
            keeps_answers=any(
                _root(value) in filled or not answers.isdisjoint(map(_spelled, ast.walk(value))) for value in returns
            ),
            counts_calls=_counts(nodes),
            keyed=any(_keyed(node, parameters) for node in nodes),
            by_condition=0 < kept < len(returns) and self._by_condition(forward),
            unlaunchable=_unlaunchable(self.program, nodes),
        )

    def _by_condition(self, forward: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        """Whether forward ends without an own kernel, unless a condition holds that is not about types, devices or layouts."""
        last = forward.body[-1]
        if not isinstance(last, ast.Return) or last.value is None or self.flow.leads(last.value, forward):
            return False
        tests = [node.test for node in _inside(forward) if isinstance(node, ast.If) and self._returns_own(node, forward)]
        words = {word for test in tests for node in ast.walk(test) if (word := getattr(node, "attr", getattr(node, "id", "")))}
        return bool(tests) and words.isdisjoint(_ABILITIES)

    def _returns_own(self, branch: ast.If, forward: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
        parts = (node for statement in branch.body for node in ast.walk(statement))
        returns = (node.value for node in parts if isinstance(node, ast.Return) and node.value is not None)
        return any(self.flow.leads(value, forward) for value in returns)

    def _hot(self, forward: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Forward and every function of this file that it may come to call, but for Triton's."""
        queue, seen, known = [forward], {id(forward)}, set[str]()
        while queue:
            function = queue.pop()
            yield function
            names = names_in(function)
            for attribute in self._own_attributes(function) - known:
                known.add(attribute)
                queue += [self.flow.methods[attribute]] if attribute in self.flow.methods else []
                names |= set[str]().union(*map(names_in, self.flow.assigned.get(attribute, [])))
            for name in names - known:
                known.add(name)
                queue += self._defined(name)
            queue = [f for f in queue if id(f) not in seen and f.name not in self.program.jit]
            seen |= set(map(id, queue))

    def _own_attributes(self, function: ast.AST) -> set[str]:
        nodes = (node for node in ast.walk(function) if isinstance(node, ast.Attribute))
        return {node.attr for node in nodes if isinstance(node.value, ast.Name) and node.value.id == "self"}

    def _defined(self, name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for statement in self.program.binders.get(name, []):
            if isinstance(statement, _FUNCTIONS):
                yield statement
            elif isinstance(statement, ast.ClassDef) and name != self.program.entry:
                yield from (m for m in statement.body if isinstance(m, _FUNCTIONS) and m.name != "__init__")

    # ------------------------------------------------------------------ what torch computes

    def torch_op(self, node: ast.AST) -> str:
        """The operator that a node has torch or numpy compute, "" for none."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            return "@"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
            return ""
        path = self.program.dotted(node.func)
        if path.startswith(("torch.", "numpy.")):
            name = path.rpartition(".")[2].removesuffix("_")
            foreign = path.startswith("torch.ops.") and path.split(".")[2] not in self.program.namespaces
            return name if foreign or name in COMPUTING else ""
        if isinstance(node.func, ast.Name) or path.partition(".")[0] in self.program.aliases.values():
            return ""
        method = node.func.attr
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "self":
            return self._modules_of_torch.get(method, "")
        plain = method.removesuffix("_")
        own = self.flow.is_kernel(node.func.value) or (method in self._tensor_methods and self._is_led(node.func.value))
        return plain if plain in METHODS and not own else ""

    @cached_property
    def _tensor_methods(self) -> frozenset[str]:
        """Methods of tensor classes of this file that run an own kernel."""
        classes = (c for c in self.program.classes.values() if "torch.Tensor" in map(self.program.dotted, c.bases))
        methods = (m for c in classes for m in c.body if isinstance(m, _FUNCTIONS))
        return frozenset(method.name for method in methods if self.flow.names_kernel(method))

    def _is_led(self, value: ast.AST) -> bool:
        forward = self.flow.methods.get("forward")
        return forward is not None and self.flow.leads(value, forward)

    @cached_property
    def _modules_of_torch(self) -> dict[str, str]:
        """By attribute of self: `Linear` for `nn.Linear(8, 8)`, `compile` for `torch.compile(f)`."""
        found: dict[str, str] = {}
        for attribute, values in self.flow.assigned.items():
            calls = (node for value in values for node in ast.walk(value) if isinstance(node, ast.Call))
            for path in map(self.program.dotted, (call.func for call in calls)):
                name = path.rpartition(".")[2]
                if path.startswith(_COMPILERS) or (path.startswith("torch.nn.") and name not in _HOLDERS and name[:1].isupper()):
                    found[attribute] = name
        return found

    def _compiled(self, functions: Iterable[ast.FunctionDef | ast.AsyncFunctionDef]) -> set[str]:
        decorators = [self.program.dotted(d.func if isinstance(d, ast.Call) else d) for f in functions for d in f.decorator_list]
        return {
            path.rpartition(".")[2] for path in decorators if path.startswith(_COMPILERS) and not path.startswith("torch.compiler")
        }

    # ------------------------------------------------------------------ habits

    def _filled(self, forward: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
        """What an earlier call's answer may be read from: `self.x` that forward fills, and names read from it."""
        pairs = [(target, value) for target, value in bindings(forward) if not self._is_extension(target)]
        filled = {f"self.{attribute}" for target, _ in pairs for attribute in self._own_attributes(target)}
        return filled | {name for target, value in pairs if _root(value) in filled for name in names_in(target)}

    def _answers(self, forward: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
        """`self.x` that is given what an own kernel computed, if a condition holds."""
        branches = (node for node in _inside(forward) if isinstance(node, ast.If))
        parts = (s for branch in branches for s in (*branch.body, *branch.orelse) if not isinstance(s, ast.If))
        kept = (target for part in parts for target, value in bindings(part) if self.flow.names_kernel(value))
        return {f"self.{attribute}" for target in kept for attribute in self._own_attributes(target)}

    def _is_extension(self, node: ast.AST) -> bool:
        """Whether a name, or an attribute of self, is the compiled module itself: what it is given does not stay in it."""
        if isinstance(node, ast.Name):
            return node.id in self.program.own
        given = self.flow.assigned.get(_spelled(node).removeprefix("self."), [])
        return any(
            v.id in self.program.own if isinstance(v, ast.Name) else isinstance(v, ast.Call) and self.program.loads(v.func)
            for v in given
        )


def _inside(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Nodes of a function without those of functions that are defined in it."""
    queue: list[ast.AST] = list(function.body)
    while queue:
        node = queue.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.Lambda, ast.ClassDef)):
            queue.extend(ast.iter_child_nodes(node))


def _calls_super(node: ast.AST) -> bool:
    """`super().forward(...)` or `Model.forward(self, ...)`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "forward"):
        return False
    holder = node.func.value
    by_super = isinstance(holder, ast.Call) and isinstance(holder.func, ast.Name) and holder.func.id == "super"
    return by_super or any(isinstance(arg, ast.Name) and arg.id == "self" for arg in node.args)


def _keyed(node: ast.AST, parameters: set[str]) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "id":
        return any(isinstance(arg, ast.Name) and arg.id in parameters for arg in node.args)
    return (
        isinstance(node, ast.Attribute)
        and node.attr in _PLACES
        and isinstance(node.value, ast.Name)
        and node.value.id in parameters
    )


def _counts(nodes: list[ast.AST]) -> bool:
    """Whether something that is counted up here is looked at in a condition here, unless all that hangs on it is printed."""
    counted = {_spelled(node.target) for node in nodes if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add)} - {""}
    harmless = [node.test for node in nodes if isinstance(node, ast.If) and not node.orelse and all(map(_prints, node.body))]
    without = {id(part) for test in harmless for part in ast.walk(test)}
    tests = [node.test for node in nodes if isinstance(node, ast.If | ast.IfExp | ast.While)]
    compared = [node for node in nodes if isinstance(node, ast.Compare)]
    looked_at = (part for test in (*tests, *compared) for part in ast.walk(test) if id(part) not in without)
    return any(_spelled(part) in counted for part in looked_at)


def _prints(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "print"


def _unlaunchable(program: Program, nodes: Iterable[ast.AST]) -> bool:
    launches = [lacking for node in nodes if (lacking := _lacks_arguments(program, node)) is not None]
    return bool(launches) and all(launches)


def _lacks_arguments(program: Program, node: ast.AST) -> bool | None:
    """Whether `kernel[grid](...)` gives less than the kernel needs. None: it is no launch, or what it gives cannot be counted."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)):
        return None
    named = node.func.value
    kernel = program.jit.get(named.id if isinstance(named, ast.Name) else named.attr if isinstance(named, ast.Attribute) else "")
    if kernel is None or any(isinstance(decorator, ast.Call) for decorator in kernel.decorator_list):  # an autotuner gives some
        return None
    if any(isinstance(arg, ast.Starred) for arg in node.args) or any(word.arg is None for word in node.keywords):
        return None
    parameters = [*kernel.args.posonlyargs, *kernel.args.args]
    needed = [a.arg for a in parameters[len(node.args) : len(parameters) - len(kernel.args.defaults)]]
    return not set(needed) <= {word.arg for word in node.keywords}


def _root(node: ast.AST) -> str:
    """`self.kept` for `self.kept[key].pop()`, `found` for `found[1]`, "" for what is computed."""
    while True:
        if spelled := _spelled(node):
            return spelled
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not node.keywords:
            node = node.func.value
        else:
            return ""


def _spelled(node: ast.AST) -> str:
    """`self.calls`, `calls`, or "" for anything longer."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
        return f"self.{node.attr}"
    return ""
