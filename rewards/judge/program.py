"""A candidate's source, read once: its syntax tree, its Triton functions, and the C++ that it hands to the compiler."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from kernel_env.checks.static import SourceFault, parse
from kernel_env.checks.tree import aliases_of, bound_names, path_of, top_level
from rewards.judge import clike

_MODULE = "torch.utils.cpp_extension"
_LOADERS = ("load_inline", "load")
_SOURCES = ("cpp_sources", "cuda_sources", "sources")
_POSITIONS = {True: ("name", "cpp_sources", "cuda_sources", "functions"), False: ("name", "sources")}
"""Parameters of `load_inline` (True) and `load`, in order."""
_MOST_CALLS = 32
"""Of more compilations than any kernel needs the rest is not looked at: the time to read a source stays linear in its length."""


@dataclass(frozen=True)
class Native:
    """The C++ and CUDA of a candidate."""

    text: str
    exported: frozenset[str]
    """Names that `functions=[...]` lists."""
    complete: bool
    """Whether every source was found where it is handed to the compiler. Else `text` is what looks like C++ anywhere."""

    @cached_property
    def reached(self) -> clike.Reached:
        return clike.reached(self.text, self.exported)

    @cached_property
    def called(self) -> frozenset[str]:
        """Functions of C and of the system that are called, by name: no methods, none of torch's or of the source's own."""
        stream = self.reached.tokens
        found = set[str]()
        for i, token in enumerate(stream[:-1]):
            before = stream[i - 1] if i else ""
            if stream[i + 1] == "(" and before not in (".", "->") and not (before == "::" and stream[i - 2] in ("at", "torch")):
                found.add(token)
        return frozenset(found - self.reached.defined)


class Program:
    """Facts that need the whole module. Every walk is iterative: the depth of the tree is the candidate's choice."""

    def __init__(self, tree: ast.Module, entry: str) -> None:
        self.nodes = list(ast.walk(tree))
        self.aliases = aliases_of(self.nodes)
        self.statements = list(top_level(tree))
        self.binders: dict[str, list[ast.stmt]] = {}
        for statement in self.statements:
            for name in bound_names(statement):
                self.binders.setdefault(name, []).append(statement)
        self.entry = self._class_behind(entry)

    def _class_behind(self, entry: str) -> str:
        """The name of the class that `entry` stands for: its own, or after `ModelNew = Fast` that one. The last binding counts."""
        seen = set[str]()
        while entry not in seen:
            seen.add(entry)
            match self.binders.get(entry, [None])[-1]:
                case ast.Assign(value=ast.Name(id=other)) | ast.AnnAssign(value=ast.Name(id=other)) if other in self.binders:
                    entry = other
        return entry

    def dotted(self, node: ast.AST) -> str:
        """`torch.nn.functional.relu` for `F.relu`: a path with its import resolved, "" for anything else."""
        root, dot, rest = path_of(node).partition(".")
        return self.aliases.get(root, root) + dot + rest

    def loads(self, node: ast.AST) -> bool:
        """Whether `node` names the compiler's front end, `load_inline` or `load`, as it was imported from torch."""
        path = self.dotted(node)
        if path in _LOADERS:
            return f"{_MODULE}.*" in self.aliases
        return path in (f"{_MODULE}.{name}" for name in _LOADERS)

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        return {s.name: s for s in self.statements if isinstance(s, ast.ClassDef)}

    @cached_property
    def jit(self) -> dict[str, ast.FunctionDef]:
        """Functions that Triton compiles, by name."""
        handed = {
            arg.id
            for call in self._calls
            if self._is_jit(call.func)
            for arg in call.args
            if isinstance(arg, ast.Name)
        }  # fmt: skip
        functions = [node for node in self.nodes if isinstance(node, ast.FunctionDef)]
        return {f.name: f for f in functions if f.name in handed or any(map(self._is_jit, map(_callee, f.decorator_list)))}

    @property
    def sources(self) -> frozenset[str] | None:
        """The strings that are handed to the compiler; None where not all are found (or none), and any string may be one."""
        texts, _, complete = self._handed_over
        return frozenset(texts) if texts and complete else None

    @cached_property
    def native(self) -> Native:
        texts, exported, complete = self._handed_over
        if not complete:
            texts = [*dict.fromkeys(text for text in self._free_texts() if "{" in text and ";" in text)]
        return Native("\n".join(dict.fromkeys(texts)), frozenset(exported), complete)

    @cached_property
    def _handed_over(self) -> tuple[list[str], set[str], bool]:
        """Sources and names of functions in calls of the compiler's front end, and whether every source was found."""
        calls = [call for call in self._calls if self.loads(call.func)]
        texts, exported, complete = list[str](), set[str](), len(calls) <= _MOST_CALLS
        for call in calls[:_MOST_CALLS]:
            inline = self.dotted(call.func).endswith("load_inline")
            given = dict(zip(_POSITIONS[inline], call.args, strict=False)) | {word.arg or "": word.value for word in call.keywords}
            found = [text for name in _SOURCES if name in given for text in self._texts(given[name])]
            complete &= bool(found) and inline
            texts += found
            exported |= set(self._texts(given["functions"])) if "functions" in given else set()
        return texts, exported, complete

    @cached_property
    def own(self) -> frozenset[str]:
        """Module-level names that stand for the candidate's kernels, or for what may come to use one."""
        users: dict[str, set[str]] = {}
        own = set(self.jit)
        for statement in self.statements:
            bound = bound_names(statement)
            inside = [node for node in ast.walk(statement) if isinstance(node, ast.Name | ast.Attribute)]
            own |= bound if any(map(self.loads, inside)) else set()
            for name in {node.id for node in inside if isinstance(node, ast.Name)}:
                users.setdefault(name, set()).update(bound)
        queue = list(own)
        while queue:
            fresh = users.get(queue.pop(), set()) - own - self.aliases.keys()
            own |= fresh
            queue += fresh
        return frozenset(own)

    @cached_property
    def namespaces(self) -> frozenset[str]:
        """Of operators that the candidate registers: `torch.ops.<namespace>`."""
        stream = clike.tokens(self.native.text)
        native = {stream[i + 2] for i, token in enumerate(stream[:-2]) if token.startswith("TORCH_LIBRARY")}
        return frozenset(native | (self._defined if self._implements_own else set())) - {"aten", "prims"}

    @property
    def _defined(self) -> set[str]:
        """Namespaces of operators that Python defines, ..."""
        calls = (call for call in self._calls if self.dotted(call.func).startswith("torch.library."))
        names = (arg.value for call in calls for arg in call.args[:1] if isinstance(arg, ast.Constant))
        return {name.partition("::")[0] for name in names if isinstance(name, str)}

    @property
    def _implements_own(self) -> bool:
        """... and whether a function that may be one of those operators comes to use an own kernel."""
        functions = (node for node in self.nodes if isinstance(node, ast.FunctionDef) and node.name in self.own)
        handed = {arg.id for call in self._calls for arg in call.args if isinstance(arg, ast.Name)}
        return any(function.decorator_list or function.name in handed for function in functions)

    @cached_property
    def handed_on(self) -> frozenset[str]:
        """Variables of loops over what was imported: `for place in (math, statistics)`."""
        loops = (node for node in self.nodes if isinstance(node, ast.For))
        over = (loop for loop in loops if any(name.id in self.aliases for name in _elements(loop.iter)))
        return frozenset(part.id for loop in over for part in ast.walk(loop.target) if isinstance(part, ast.Name))

    @cached_property
    def _calls(self) -> list[ast.Call]:
        return [node for node in self.nodes if isinstance(node, ast.Call)]

    def _is_jit(self, node: ast.AST) -> bool:
        path = self.dotted(node)
        return path.startswith("triton.") and path.endswith(".jit")

    def _texts(self, node: ast.AST) -> Iterator[str]:
        """The strings that an expression is made of; names are followed to what the module binds them to."""
        queue, seen = [node], set[str]()
        while queue:
            for inner in ast.walk(queue.pop()):
                text = text_of(inner)
                if text is not None:
                    yield text
                elif isinstance(inner, ast.Name) and inner.id not in seen:
                    seen.add(inner.id)
                    bound = self.binders.get(inner.id, [])
                    queue += [s.value for s in bound if isinstance(s, ast.Assign | ast.AnnAssign | ast.AugAssign) and s.value]

    def _free_texts(self) -> Iterable[str]:
        """Every string but those that stand alone, as docstrings do."""
        alone = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}
        return (text for node in self.nodes if id(node) not in alone and (text := text_of(node)) is not None)


def text_of(node: ast.AST) -> str | None:
    """What a string says, or one of bytes."""
    value = node.value if isinstance(node, ast.Constant) else None
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def _elements(value: ast.expr) -> Iterator[ast.Name]:
    """Names that a literal of any depth holds as they are: not those that something is asked of."""
    queue = [value]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.Name):
            yield node
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            queue += node.elts


def read(source: str, entry: str = "ModelNew") -> Program | SourceFault:
    """Never raises for what the source holds."""
    tree = parse(source)
    return tree if isinstance(tree, SourceFault) else Program(tree, entry)


def _callee(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node
