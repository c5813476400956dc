"""Facts about a candidate's Python source, read from its syntax tree, and the first rules over them.

Only the tree counts: words in comments, strings and names mean nothing. Nothing of the source is executed, and a hostile
source (huge, nested without end, not text at all) gives a `SourceFault` and never an exception.

A rule refuses only what cannot be a kernel whatever the rest of the file does; a mistake, such as a misspelt name, is left for
the run to report. "Reaches" is therefore read generously: the
entry class reaches every top-level statement that binds an identifier which is mentioned (as a name, an attribute or a
string) in what was reached before, and every statement that may change the entry from outside.
"""

from __future__ import annotations

import ast
import builtins
import threading
import warnings
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from kernel_env.checks.tree import DEFINITIONS, aliases_of, bound_names, path_of, top_level

MAX_SOURCE_CHARS = 256 * 1024
"""Longer sources are refused: parsing them would take the checker's memory, and no kernel is so long."""

_EXTENSION_MODULE = "torch.utils.cpp_extension"
_NOT_OPERATIONS = frozenset({"constexpr", "static_assert", "static_print", "device_print", "device_assert", "assume"})
_PYTHONS = frozenset({"np", "numpy", "torch", "sys", "os", "builtins", "runtime", "inspect", "importlib"})
"""Parts of paths by which a module of Triton leads out of it."""
_OF_PYTHON = """
    eval exec compile __import__ globals locals vars getattr setattr delattr open type super object breakpoint input dir map filter
"""
NOT_COMPILED = frozenset(_OF_PYTHON.split())
"""Built-in functions that no kernel can call."""
_OF_NUMBERS = frozenset({"int", "float", "bool", "min", "max", "abs", "round", "len", "range", "tuple", "list"})
_NUMBERS = frozenset(f"math.{name}" for name in ("pi", "e", "tau", "inf", "nan"))
_INERT_DECORATORS = frozenset(
    {"torch.no_grad", "torch.inference_mode", "torch.compiler.disable", "functools.lru_cache", "functools.cache"}
)
"""Decorators that do not register what they decorate anywhere."""
_IMPLICIT_NAMES = frozenset({*dir(builtins), "__name__", "__file__", "__class__", "__qualname__", "__module__"})
_WARNINGS_LOCK = threading.Lock()


@dataclass(frozen=True)
class SourceFault:
    """Why there is no syntax tree. `limits` means that only we refuse it; Python itself might read it."""

    kind: Literal["syntax", "limits"]
    message: str
    line: int | None = None


@dataclass(frozen=True)
class EntryClass:
    """The entry class as it stands at module level (the last definition of that name)."""

    line: int
    bases: tuple[str, ...]
    """Dotted names with import aliases resolved, e.g. `torch.nn.Module`; `?` for other expressions."""
    own_forward: bool
    """Whether its body binds `forward`."""
    inherited_forward: str = ""
    """Otherwise the class of this file that `forward` comes from, `?` when a base is unknown here, "" when there is none."""

    @property
    def has_forward(self) -> bool:
        return self.own_forward or bool(self.inherited_forward)


@dataclass(frozen=True)
class JitFunction:
    """A function decorated with `triton.jit`, alone or under `triton.autotune` and the like."""

    name: str
    line: int
    uses_ops: bool
    """Whether its body calls anything of `triton.language`."""
    foreign: str = ""
    """A name in its body that stands for something of Python's that Triton cannot compile, "" if there is none."""


@dataclass(frozen=True)
class ExtensionCall:
    """A call of `load_inline` or `load` of `torch.utils.cpp_extension`."""

    function: str
    line: int
    discarded: bool
    """The call is a statement of its own and its result goes nowhere."""


@dataclass(frozen=True)
class SourceFacts:
    """What the tree says. Tuples are in the order of the source."""

    entry: EntryClass | None
    jit_functions: tuple[JitFunction, ...]
    mentions_jit: bool
    """`triton.jit` is used in any way, also as a plain call or inside a decorator of the candidate's own."""
    uses_triton_ops: bool
    """Anything of `triton.language` is called anywhere, or it is star-imported."""
    launches: tuple[str, ...]
    """Names of jit functions that are called as `name[grid](...)` outside of jit functions."""
    extension_calls: tuple[ExtensionCall, ...]
    mentions_extension: bool
    """`load_inline` or `load` is used in any way."""
    registers_operators: bool
    """An extension may be loaded for operators that it registers (`is_python_module=False`, `TORCH_LIBRARY`), not for a module."""
    entry_reaches_jit: bool
    """The entry class may come to run a jit function."""
    entry_reaches_extension: bool
    """The entry class may come to use what an extension call returned."""
    undefined: tuple[str, ...]
    """Names that the entry class may come to read although nothing in the source binds them (empty under a star import)."""


def facts(source: str, entry: str = "ModelNew") -> SourceFacts | SourceFault:
    """Read `source`. Never raises; time and memory are bounded by `MAX_SOURCE_CHARS`."""
    tree = parse(source)
    return tree if isinstance(tree, SourceFault) else _Reader(tree, entry).facts()


def check_triton(source: str, entry: str = "ModelNew") -> str | None:
    """Why `source` cannot be a Triton kernel, in one sentence, or None.

    None as well when Python cannot read it: importing it shows the real error.
    """
    found = facts(source, entry)
    if isinstance(found, SourceFault):
        return found.message if found.kind == "limits" else None
    if not found.mentions_jit:
        return "The source has no Triton kernel: no function is decorated with @triton.jit."
    if not found.uses_triton_ops or (found.jit_functions and not any(f.uses_ops for f in found.jit_functions)):
        return "No @triton.jit function uses an operation of triton.language such as tl.load or tl.store."
    if found.entry and found.jit_functions and not found.entry_reaches_jit and not found.undefined:
        return f"Class {entry} never uses a @triton.jit function of the source."
    for kernel in found.jit_functions:
        if kernel.foreign:
            return (
                f"The @triton.jit function {kernel.name} uses {kernel.foreign}, which Triton cannot compile: only triton.language, "
                "other @triton.jit functions and constants can be used there."
            )
    return None


def check_cpp(source: str, entry: str = "ModelNew") -> str | None:
    """Why `source` cannot be a C++ kernel, in one sentence, or None.

    None as well when Python cannot read it: importing it shows the real error.
    """
    found = facts(source, entry)
    if isinstance(found, SourceFault):
        return found.message if found.kind == "limits" else None
    if not found.mentions_extension:
        return "The source compiles no C++: it never calls torch.utils.cpp_extension.load_inline."
    if found.entry and not found.registers_operators and not found.entry_reaches_extension and not found.undefined:
        return f"Class {entry} never uses the compiled C++ extension."
    return None


def check_cuda(source: str, entry: str = "ModelNew") -> str | None:
    """Why `source` cannot be a CUDA kernel, in one sentence, or None."""
    reason = check_cpp(source, entry)
    if reason is not None:
        return reason.replace("compiles no C++", "compiles no CUDA").replace("C++ extension", "CUDA extension")
    if "__global__" not in source and not isinstance(facts(source, entry), SourceFault):
        return "The source has no CUDA kernel: no function is declared __global__."
    return None


def parse(source: str) -> ast.Module | SourceFault:
    """The syntax tree, or why there is none. Never raises for what the source holds."""
    if len(source) > MAX_SOURCE_CHARS:
        return SourceFault("limits", f"The source has {len(source)} characters; at most {MAX_SOURCE_CHARS} are allowed.")
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a bad escape in the candidate's string is not our warning
            return ast.parse(source)
    except SyntaxError as error:
        return SourceFault("syntax", f"line {error.lineno}: {error.msg}", error.lineno)
    except ValueError as error:  # null bytes, lone surrogates
        return SourceFault("syntax", str(error))
    except (RecursionError, MemoryError):
        return SourceFault("limits", "The source is nested too deeply to be checked.")


class _Reader:
    """Collects the facts of one tree. Walks are iterative: the depth of the tree is the candidate's choice."""

    def __init__(self, tree: ast.Module, entry: str) -> None:
        self.entry = entry
        self.nodes = list(ast.walk(tree))
        self.aliases = aliases_of(self.nodes)
        self.statements = list(top_level(tree))
        self.jit_nodes = self._jit_nodes()
        self._module_level = {name for statement in self.statements for name in bound_names(statement)} - set(self.aliases)
        self._module_level -= {
            n.name
            for n in self.statements
            if isinstance(n, ast.FunctionDef) and any(self._dotted(_callee(d)).startswith("triton.") for d in n.decorator_list)
        }

    def facts(self) -> SourceFacts:
        in_kernels = {id(node) for kernel in self.jit_nodes for node in ast.walk(kernel)}
        reached = self._reached()
        reached_ids = {id(node) for node in reached}
        discarded = {id(node.value) for node in self.nodes if isinstance(node, ast.Expr)}
        calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        return SourceFacts(
            entry=self._entry_class(),
            jit_functions=tuple(map(self._jit_function, self.jit_nodes)),
            mentions_jit=any(self._is_jit(node) for node in self.nodes),
            uses_triton_ops=self._uses_ops(self.nodes),
            launches=self._launches(call for call in calls if id(call) not in in_kernels),
            extension_calls=tuple(
                ExtensionCall(self._loader(call.func), call.lineno, id(call) in discarded)
                for call in sorted(calls, key=_position)
                if self._loader(call.func)
            ),
            mentions_extension=any(self._loader(node) for node in self.nodes),
            registers_operators=any(map(_registers, self.nodes)),
            entry_reaches_jit=any(id(kernel) in reached_ids for kernel in self.jit_nodes),
            entry_reaches_extension=any(self._loader(node) for node in reached),
            undefined=self._undefined(reached),
        )

    # -------------------------------------------------------------- names

    def _dotted(self, node: ast.AST) -> str:
        root, dot, rest = path_of(node).partition(".")
        return self.aliases.get(root, root) + dot + rest

    def _is_jit(self, node: ast.AST) -> bool:
        path = self._dotted(node)
        return path.startswith("triton.") and path.endswith(".jit")

    def _loader(self, node: ast.AST) -> str:
        """`load_inline` or `load` when `node` names that function of torch, else ""."""
        path = self._dotted(node)
        if path.rpartition(".")[2] == "load_inline" or (isinstance(node, ast.Attribute) and node.attr == "load_inline"):
            return "load_inline"
        everything = f"{_EXTENSION_MODULE}.*" in self.aliases and path == "load"
        return "load" if everything or path == f"{_EXTENSION_MODULE}.load" else ""

    def _uses_ops(self, nodes: Iterable[ast.AST]) -> bool:
        if "triton.language.*" in self.aliases:
            return True
        paths = (self._dotted(node.func) for node in nodes if isinstance(node, ast.Call))
        return any(
            path.startswith("triton.") and ".language." in path and path.rpartition(".")[2] not in _NOT_OPERATIONS for path in paths
        )

    # -------------------------------------------------------------- kernels

    def _jit_nodes(self) -> list[ast.FunctionDef]:
        """Functions under a jit decorator, or handed to `triton.jit(...)` by name."""
        calls = [node for node in self.nodes if isinstance(node, ast.Call) and self._is_jit(node.func)]
        wrapped = {arg.id for call in calls for arg in call.args if isinstance(arg, ast.Name)}
        functions = (node for node in self.nodes if isinstance(node, ast.FunctionDef))
        found = [f for f in functions if f.name in wrapped or any(self._is_jit(_callee(d)) for d in f.decorator_list)]
        return sorted(found, key=_position)

    def _jit_function(self, node: ast.FunctionDef) -> JitFunction:
        return JitFunction(node.name, node.lineno, self._uses_ops(ast.walk(node)), self._foreign(node))

    def _foreign(self, kernel: ast.FunctionDef) -> str:
        """What the interpreter would run as Python, and no GPU: a module-level function, class or object, or another library."""
        own = {a.arg for n in ast.walk(kernel) if isinstance(n, ast.arguments) for a in (*n.posonlyargs, *n.args, *n.kwonlyargs)}
        body = [node for statement in kernel.body for node in ast.walk(statement)]
        own |= {node.id for node in body if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
        compiled, fixed = self._compiled, self._fixed_math(kernel)
        for node in body:
            if isinstance(node, ast.Attribute) and node.attr.startswith("__"):
                return node.attr
            path = path_of(node)
            root = path.partition(".")[0]
            if not path or root in own or root in compiled:
                continue
            full = self._dotted(node)
            if id(node) in fixed:
                continue
            if root in self.aliases:
                if full == "math":  # what is read of it tells
                    continue
                if isinstance(node, ast.Name) and self.aliases[root].partition(".")[0] == "triton":
                    continue
                if not full.startswith("triton.") or _PYTHONS & set(full.split(".")):
                    return full
            elif root in NOT_COMPILED or (root in self._module_level and "triton.language.*" not in self.aliases):
                return root
        return ""

    @cached_property
    def _compiled(self) -> set[str]:
        """Names of the module that mean something to Triton."""
        return {node.name for node in self.jit_nodes} | self._constants()

    def _constants(self) -> set[str]:
        """Module-level names of numbers, strings and what `triton` makes (constexprs, jit functions by another name)."""
        found = set[str]()
        for statement in self.statements:
            value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
            if value is None:
                continue
            typed = isinstance(statement, ast.AnnAssign) and self._dotted(statement.annotation).startswith("triton.")
            if typed or self._is_fixed(value, found):
                found |= bound_names(statement)
        return found

    def _is_fixed(self, value: ast.expr, constants: set[str]) -> bool:
        """Whether it is made of constants, and of what `triton` makes or is."""
        remaining: list[ast.AST] = [value]
        while remaining:
            node = remaining.pop()
            path = self._dotted(node.func if isinstance(node, ast.Call) else node)
            if path.startswith("triton.") or path in _NUMBERS:
                continue
            if isinstance(node, ast.Call) and (path in _OF_NUMBERS or path.startswith("math.")):
                remaining += [*node.args, *(keyword.value for keyword in node.keywords)]
            elif isinstance(node, ast.IfExp):
                remaining += [node.body, node.orelse]
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                if path not in constants:
                    return False
            elif isinstance(node, (ast.Lambda, ast.Call, ast.Attribute)):
                return False
            else:
                remaining += ast.iter_child_nodes(node)
        return True

    def _fixed_math(self, kernel: ast.FunctionDef) -> set[int]:
        """Nodes that name something of `math` where Triton computes it: numbers, and functions of constants."""
        arguments = [a for n in ast.walk(kernel) if isinstance(n, ast.arguments) for a in (*n.posonlyargs, *n.args, *n.kwonlyargs)]
        constants = self._compiled | {a.arg for a in arguments if a.annotation and "constexpr" in ast.unparse(a.annotation)}
        body = [node for statement in kernel.body for node in ast.walk(statement)]
        for node in sorted((n for n in body if isinstance(n, (ast.Assign, ast.AnnAssign))), key=_position):
            fixed = node.value is not None and self._is_fixed(node.value, constants) and not self._uses_ops(ast.walk(node.value))
            (constants.update if fixed else constants.difference_update)(bound_names(node))
        calls = [node for node in body if isinstance(node, ast.Call) and self._dotted(node.func).startswith("math.")]
        computed = {id(node.func) for node in calls if self._is_fixed(node, constants) and not self._uses_ops(ast.walk(node))}
        called = {id(node.func) for node in calls}
        numbers = {id(node) for node in body if id(node) not in called and self._dotted(node) in _NUMBERS}
        return computed | numbers

    def _launches(self, calls: Iterable[ast.Call]) -> tuple[str, ...]:
        names = {kernel.name for kernel in self.jit_nodes}
        targets = (call.func.value for call in sorted(calls, key=_position) if isinstance(call.func, ast.Subscript))
        launched = (path_of(target).rpartition(".")[2] for target in targets)
        return tuple(dict.fromkeys(name for name in launched if name in names))

    # -------------------------------------------------------------- the entry class

    def _classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in self.statements if isinstance(node, ast.ClassDef)}

    def _entry_class(self) -> EntryClass | None:
        classes = self._classes()
        node = classes.get(self.entry)
        if node is None:
            return None
        own = _binds_forward(node)
        inherited = "" if own else self._inherited_forward(node, classes)
        return EntryClass(node.lineno, self._bases(node), own, inherited)

    def _bases(self, node: ast.ClassDef) -> tuple[str, ...]:
        return tuple(self._dotted(base) or "?" for base in node.bases)

    def _inherited_forward(self, node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> str:
        queue, seen = deque(self._bases(node)), {self.entry}
        while queue:
            base = queue.popleft()
            if base in seen or base in ("torch.nn.Module", "object"):
                continue
            seen.add(base)
            if base not in classes:
                return "?"
            if _binds_forward(classes[base]):
                return base
            queue.extend(self._bases(classes[base]))
        return ""

    def _reached(self) -> list[ast.AST]:
        """All nodes of the top-level statements that the entry class reaches (see the module's docstring)."""
        binders: dict[str, list[ast.stmt]] = defaultdict(list)
        for statement in self.statements:
            for name in bound_names(statement):
                binders[name].append(statement)
        queue = deque(binders.pop(self.entry, []))
        queue.extend(statement for statement in self.statements if self._acts_from_outside(statement))
        seen, nodes = {id(statement) for statement in queue}, list[ast.AST]()
        while queue:
            inside = list(ast.walk(queue.popleft()))
            nodes += inside
            for name in _mentioned(inside):
                fresh = [statement for statement in binders.pop(name, []) if id(statement) not in seen]
                seen.update(map(id, fresh))
                queue.extend(fresh)
        return nodes

    def _undefined(self, reached: list[ast.AST]) -> tuple[str, ...]:
        if any(key.endswith(".*") for key in self.aliases):
            return ()
        known = set(self.aliases) | _IMPLICIT_NAMES
        for node in self.nodes:
            if isinstance(node, DEFINITIONS):
                known.add(node.name)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                known.add(node.id)
            elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
                known.add(node.name)
        read = (node.id for node in reached if isinstance(node, ast.Name))
        return tuple(dict.fromkeys(name for name in read if name not in known))

    def _acts_from_outside(self, statement: ast.stmt) -> bool:
        """Whether it may change the entry, or register an operator, without binding a name that the entry mentions."""
        if isinstance(statement, DEFINITIONS):
            decorators = [self._dotted(_callee(d)) for d in statement.decorator_list]
            return any(not d.startswith("triton.") and d not in _INERT_DECORATORS for d in decorators)
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            func = statement.value.func
            return not self._loader(func) and not isinstance(func, ast.Subscript)  # neither a discarded build nor a bare launch
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        return any(isinstance(target, (ast.Attribute, ast.Subscript)) for target in targets)


def _registers(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return "TORCH_LIBRARY" in node.value
    return isinstance(node, ast.keyword) and node.arg == "is_python_module"


def _callee(node: ast.expr) -> ast.expr:
    return node.func if isinstance(node, ast.Call) else node


def _position(node: ast.stmt | ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _binds_forward(node: ast.ClassDef) -> bool:
    return any(
        (isinstance(n, DEFINITIONS) and n.name == "forward")
        or (isinstance(n, ast.Name) and n.id == "forward" and isinstance(n.ctx, ast.Store))
        or (isinstance(n, ast.Attribute) and n.attr == "forward" and isinstance(n.ctx, ast.Store))
        for n in ast.walk(node)
    )


def _mentioned(nodes: list[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
