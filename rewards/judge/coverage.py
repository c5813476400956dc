"""Does torch compute in every call, and of whole inputs, all that the reference computes? Then a kernel has nothing left to do.

Operators are counted by name. Of the reference everything counts that is not known to move or look at memory only. Of the
candidate only what certainly runs and is torch's does: in forward itself, outside of branches, loops and handlers, and not of a
part of a tensor. What cannot be read counts for the reference and not for the candidate, so that the answer is no.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator

from kernel_env.checks.provenance import GLUE
from rewards.judge.hotpath import Reader
from rewards.judge.operators import COMPUTING
from rewards.judge.program import Program

_LOOKS = frozenset(
    {"dim", "numel", "item", "len", "range", "int", "float", "tuple", "list", "isinstance", "super", "is_contiguous"}
)
_SIGNS = {
    "mul": "Mult", "multiply": "Mult", "add": "Add", "sub": "Sub", "subtract": "Sub", "div": "Div", "divide": "Div",
    "true_divide": "Div", "matmul": "MatMult", "mm": "MatMult", "bmm": "MatMult", "pow": "Pow", "neg": "USub",
}  # fmt: skip
"""Functions that have a sign of their own in Python."""


def all_by_torch(program: Program, reference: Program) -> bool:
    ours, theirs = program.classes.get(program.entry), reference.classes.get(reference.entry)
    if ours is None or theirs is None:
        return False
    candidate, wanted = Reader(program, ours), Reader(reference, theirs)
    forward, known = candidate.flow.methods.get("forward"), wanted.flow.methods.get("forward")
    if forward is None or known is None:
        return False
    needed = Counter(_needed(wanted, known))
    return bool(needed) and not needed - Counter(_done(candidate, forward))


def _needed(reader: Reader, forward: ast.AST) -> Iterator[str]:
    for node in ast.walk(forward):
        if isinstance(node, ast.BinOp | ast.AugAssign | ast.UnaryOp | ast.BoolOp):
            yield type(node.op).__name__
        elif isinstance(node, ast.Call):
            name = _name(reader, node)
            if name not in GLUE | _LOOKS:
                yield _SIGNS.get(name, name)


def _done(reader: Reader, forward: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    computed = set[str]()
    for statement in _certain(forward):
        of_statement = list(_of_expressions(reader, statement, computed))
        yield from of_statement
        if of_statement and isinstance(statement, ast.Assign):
            computed |= {target.id for target in statement.targets if isinstance(target, ast.Name)}


def _certain(forward: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.stmt]:
    """Statements that run in every call."""
    queue = forward.body[::-1]
    while queue:
        statement = queue.pop()
        if isinstance(statement, ast.With):
            queue += statement.body[::-1]
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.Return | ast.Expr):
            yield statement


def _of_expressions(reader: Reader, statement: ast.stmt, computed: set[str]) -> Iterator[str]:
    """Names of torch's operators, and signs between what they computed: `torch.relu(x)`, but not `torch.relu(x[1:])`."""
    by_torch, partial = set[int](), set[int]()
    for node in reversed(list(ast.walk(statement))):  # what is inside comes first
        inside = {id(child) for child in ast.iter_child_nodes(node)}
        if isinstance(node, ast.Slice) or not partial.isdisjoint(inside):
            partial.add(id(node))
        elif isinstance(node, ast.Name) and node.id in computed:
            by_torch.add(id(node))
        elif isinstance(node, ast.Call) and (reader.torch_op(node) or _asked_of(node, by_torch)):
            by_torch.add(id(node))
            name = _name(reader, node)
            yield _SIGNS.get(name, name)
        elif isinstance(node, ast.BinOp) and (isinstance(node.op, ast.MatMult) or not by_torch.isdisjoint(inside)):
            by_torch.add(id(node))
            yield type(node.op).__name__


def _asked_of(call: ast.Call, tensors: set[int]) -> bool:
    """Whether a method that computes is called of one of these nodes."""
    method = call.func
    return isinstance(method, ast.Attribute) and id(method.value) in tensors and method.attr.removesuffix("_") in COMPUTING


def _name(reader: Reader, call: ast.Call) -> str:
    """`relu` for `torch.relu(x)`, `x.relu_()` and `self.relu(x)` of an `nn.ReLU`; what cannot be named is `?`."""
    name = reader.torch_op(call) or reader.program.dotted(call.func).rpartition(".")[2]
    if not name and isinstance(call.func, ast.Attribute):
        name = call.func.attr
    return name.removesuffix("_").lower() or "?"
