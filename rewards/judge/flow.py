"""Where the results of a candidate's own kernels may end up among the names of its entry class.

Every assignment, loop, `with` and comprehension of every method is a step from the names it reads to the names it binds; names
belong to a method, attributes of self to the class. What leads to a kernel is found by walking these steps once, so the time is
linear in the source.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from rewards.judge.program import Program

Function = ast.FunctionDef | ast.AsyncFunctionDef
_ALLOCATES = frozenset(
    {"empty", "empty_like", "empty_strided", "new_empty", "zeros", "zeros_like", "new_zeros", "full", "full_like"}
)


@dataclass(frozen=True)
class _Step:
    """One binding: keys are `method:name` for locals and `.name` for attributes of self."""

    sources: frozenset[str]
    targets: frozenset[str]
    own: bool
    """The value names an own kernel itself."""
    view: bool
    """What is bound may be the same memory as what is read."""


class Flow:
    """One entry class's."""

    def __init__(self, program: Program, entry: ast.ClassDef) -> None:
        self.program = program
        lineage = list(_lineage(program, entry))
        self.methods = {m.name: m for c in reversed(lineage) for m in c.body if isinstance(m, Function)}
        self.assigned = self._assigned(lineage)
        """What each attribute of self is given, anywhere in the class and its bases in this file."""

    def leads(self, value: ast.AST, method: Function) -> bool:
        """Whether a value in `method` may hold something that an own kernel computed."""
        return id(value) in self._naming or bool(self._keys(value, method) & self._led)

    def is_kernel(self, callee: ast.AST) -> bool:
        """Whether an expression stands for an own kernel, or for a function of this file that may come to call one."""
        return id(callee) in self._naming or id(callee) in self._calling

    def names_kernel(self, value: ast.AST) -> bool:
        """Whether an own kernel is named in an expression."""
        return id(value) in self._naming

    # ------------------------------------------------------------------ steps

    @cached_property
    def _steps(self) -> list[_Step]:
        found = [self._step(target, value, method) for method in self.methods.values() for target, value in bindings(method)]
        for name, values in self.assigned.items():  # those of class bodies are in no method
            found.append(
                _Step(frozenset(), frozenset({f".{name}"}), any(id(value) in self._naming for value in values), view=False)
            )
        for name, method in self.methods.items():  # calling a method may be calling a kernel
            attributes = frozenset(key for key in self._keys(method, None) if key.startswith("."))
            found.append(_Step(attributes, frozenset({f".{name}"}), id(method) in self._naming, view=False))
        return found

    def _step(self, target: ast.AST, value: ast.AST, method: Function) -> _Step:
        own = id(value) in self._naming
        return _Step(self._keys(value, method), self._keys(target, method), own, view=not own and not _allocates(value))

    def _keys(self, node: ast.AST, method: Function | None) -> frozenset[str]:
        scope = method.name if method else ""
        found = set[str]()
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and _is_self(part.value):
                found.add(f".{part.attr}")
            elif isinstance(part, ast.Name) and part.id != "self" and part.id not in self.program.aliases:
                found.add(f"{scope}:{part.id}")
        return frozenset(found)

    # ------------------------------------------------------------------ nodes

    @cached_property
    def _naming(self) -> frozenset[int]:
        """Nodes (by `id`) in which an own kernel is named, the compiler, or an operator that the candidate registers."""
        return self._around(self._is_own)

    @cached_property
    def _calling(self) -> frozenset[int]:
        """Nodes in which an attribute of self is read that leads to an own kernel, whatever memory is handed to whom."""
        leading = self._forward(set())
        return self._around(lambda node: isinstance(node, ast.Attribute) and f".{node.attr}" in leading and _is_self(node.value))

    def _around(self, test: Callable[[ast.AST], bool]) -> frozenset[int]:
        """Nodes that pass a test, and all that are around such a node. Nodes come outermost first, so one way back is enough."""
        found = set[int]()
        for node in reversed(self.program.nodes):
            if test(node) or any(id(child) in found for child in ast.iter_child_nodes(node)):
                found.add(id(node))
        return frozenset(found)

    def _is_own(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name) and node.id in self.program.own:
            return True
        if not isinstance(node, ast.Name | ast.Attribute):
            return False
        if self.program.loads(node) or (isinstance(node, ast.Attribute) and node.attr in self.program.jit):
            return True
        path = self.program.dotted(node)
        return path.startswith("torch.ops.") and path.split(".")[2] in self.program.namespaces

    # ------------------------------------------------------------------ walking them

    @cached_property
    def _led(self) -> frozenset[str]:
        return frozenset(self._forward(self._backward(self._buffers())))

    def _forward(self, led: set[str]) -> set[str]:
        """`led` and whatever may hold something of it, or of an own kernel."""
        readers: dict[str, list[_Step]] = {}
        for step in self._steps:
            for key in step.sources:
                readers.setdefault(key, []).append(step)
        queue = [*led, *(key for step in self._steps if step.own for key in step.targets)]
        found = set(queue)
        while queue:
            for step in readers.pop(queue.pop(), []):
                queue += step.targets - found
                found |= step.targets
        return found

    def _backward(self, written: set[str]) -> set[str]:
        """`written` and whatever it may be a view of."""
        binders: dict[str, list[_Step]] = {}
        for step in self._steps:
            for key in step.targets if step.view else ():
                binders.setdefault(key, []).append(step)
        queue, found = list(written), set(written)
        while queue:
            for step in binders.pop(queue.pop(), []):
                queue += step.sources - found
                found |= step.sources
        return found

    def _buffers(self) -> set[str]:
        """What is handed to kernels to be written: memory allocated in the method, else whatever a call without a result gets."""
        found = set[str]()
        kept = {f".{name}" for name, values in self.assigned.items() if any(map(_allocates, values))}
        answering = self.program.native.exported - self.program.native.reached.void
        for method in self.methods.values():
            fresh = kept.union(*(self._keys(target, method) for target, value in bindings(method) if _allocates(value)))
            alone = {id(node.value) for node in ast.walk(method) if isinstance(node, ast.Expr)}
            for call in (node for node in ast.walk(method) if isinstance(node, ast.Call) and self.is_kernel(node)):
                parts = (*call.args, *(word.value for word in call.keywords))
                given = frozenset[str]().union(*(self._keys(part, method) for part in parts))
                name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
                discarded = id(call) in alone and name not in answering
                found |= given & fresh or (given if discarded else frozenset())
        return found

    def _assigned(self, lineage: Sequence[ast.ClassDef]) -> dict[str, list[ast.expr]]:
        found: dict[str, list[ast.expr]] = {}
        for attribute, value in (*self._in_methods(), *self._in_bodies(lineage)):
            found.setdefault(attribute, []).append(value)
        return found

    def _in_methods(self) -> Iterator[tuple[str, ast.expr]]:
        for method in self.methods.values():
            for target, value in bindings(method):
                for part in ast.walk(target):
                    if isinstance(part, ast.Attribute) and _is_self(part.value):
                        yield part.attr, value
            for call in (node for node in ast.walk(method) if isinstance(node, ast.Call)):
                match call:
                    case ast.Call(func=ast.Attribute(attr="register_buffer"), args=[ast.Constant(value=str(name)), value, *_]):
                        yield name, value

    def _in_bodies(self, lineage: Sequence[ast.ClassDef]) -> Iterator[tuple[str, ast.expr]]:
        """In class bodies, and from outside: `ModelNew.kernel = ...`."""
        for statement in (s for c in lineage for s in c.body if isinstance(s, ast.Assign)):
            yield from ((name, statement.value) for target in statement.targets for name in names_in(target))
        classes = {c.name for c in lineage}
        for statement in (s for s in self.program.statements if isinstance(s, ast.Assign)):
            for target in statement.targets:
                if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in classes:
                    yield target.attr, statement.value


def bindings(function: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """Every (target, value) of assignments, loops, `with` and comprehensions; `a.add(b)` may leave b in a."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
            yield node.target, node.value
        elif isinstance(node, ast.For | ast.comprehension):
            yield node.target, node.iter
        elif isinstance(node, ast.withitem) and node.optional_vars is not None:
            yield node.optional_vars, node.context_expr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield from ((node.func.value, argument) for argument in node.args)


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def names_in(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def own_argument(function: Function) -> str:
    """`self`, in most cases."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    return arguments[0].arg if arguments else ""


def _allocates(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in _ALLOCATES for n in ast.walk(node))


def _lineage(program: Program, entry: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """A class and its bases in this file, nearest first."""
    queue, seen = [entry], {entry.name}
    while queue:
        now = queue.pop(0)
        yield now
        for name in map(program.dotted, now.bases):
            if name in program.classes and name not in seen:
                seen.add(name)
                queue.append(program.classes[name])
