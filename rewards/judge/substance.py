"""What own kernels do: whether they compute at all, what they leave to libraries, and by which means they are made fast.

Only what the exported functions and launched Triton functions come to use is looked at, so that text which never runs adds nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rewards.judge.clike import is_name
from rewards.judge.operators import COMPUTING, LAYERS, LIBRARIES, PRODUCTS
from rewards.judge.program import Program

_FUNCTIONS = """
    exp exp2 expf __expf expm1 log logf __logf log2 log1p tanh tanhf sinh cosh sin cos tan sqrt sqrtf rsqrt rsqrtf cbrt pow powf erf
    erff fma fmaf fmax fmaxf fmin fminf max min abs fabs fabsf clamp sigmoid atomicAdd
"""
_MATHS = frozenset(_FUNCTIONS.split())
_ON_RANGES = "accumulate reduce inner_product transform sort stable_sort nth_element partial_sort partial_sum"
_ALGORITHMS = frozenset(_ON_RANGES.split())
_INTRINSIC = re.compile(
    r"_mm\d*_(?!load|store|set|cast|stream|zero|prefetch|maskload|maskstore|broadcast)\w+"
    r"|v(add|sub|mul|fma|mla|max|min)q?_\w+|__h(add|sub|mul|fma|max|min)2?\w*"
)
_ARITHMETIC = frozenset({"*", "/", "+", "-", "%", "<", ">", "<=", ">=", "==", "!=", "?", "&", "|", "^"})
_IN_PLACE = frozenset({"+=", "-=", "*=", "/=", "%=", "&=", "|=", "^="})
_INTEGERS = "int int64_t int32_t uint32_t uint64_t size_t unsigned long dim3 ssize_t ptrdiff_t"
_WHOLE = frozenset(_INTEGERS.split())
"""Types of what is computed about places, not about numbers."""
_UNSEEN = """
    ExcludeDispatchKeyGuard DisableRecordFunctionGuard AutoDispatchBelowADInplaceOrView DisableTorchDispatch DispatchKeySet
    redispatch findSchemaOrThrow enableRecordFunction
"""
_HIDING = frozenset(_UNSEEN.split())
"""Of torch's own interfaces: by what an operator runs unseen by whoever traces."""
_STREAM_WAITS = frozenset({"cudaStreamWaitEvent", "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize"})
_OF_THREADS = """
    wait wait_for wait_until join get future latch barrier condition_variable counting_semaphore binary_semaphore sem_wait
    pthread_join volatile cudaStreamQuery cudaEventQuery
"""
_WAITS = frozenset(_OF_THREADS.split()) | _STREAM_WAITS
_NAMESPACES = (("at", "::"), ("torch", "::"), ("functional", "::"), ("native", "::"))


@dataclass(frozen=True)
class Substance:
    """Facts about all own kernels of a candidate."""

    known: bool
    """Whether all of their source was found."""
    computes: bool
    """Some kernel writes what it computed of numbers: it does more than copy, fill or pass on."""
    library: tuple[str, ...] = ()
    """What C++ has torch, a BLAS or Python compute."""
    hides: tuple[str, ...] = ()
    """Words by which C++ keeps operators from being seen, or changes those of torch."""
    detached: bool = False
    """C++ starts a thread or a stream that goes on by itself, ..."""
    waits: bool = False
    """... and has means to know when that is done."""
    means: tuple[str, ...] = ()
    """Ways in which it is made fast, in words."""


def substance(program: Program) -> Substance:
    stream = program.native.reached.tokens if program.native.text else ()
    kernels = _launched(program)
    return Substance(
        known=program.native.complete or not program.native.text,
        computes=_computes(stream) or _triton_computes(program),
        library=tuple(sorted(_library(stream, program.native.reached.defined))) if stream else (),
        hides=tuple(sorted(_hides(stream))),
        detached=_detached(stream),
        waits=any(word in _WAITS or word.startswith(("atomic", "memory_order")) for word in stream),
        means=tuple(dict.fromkeys((*_means(stream), *(word for kernel in kernels for word in _triton_means(program, kernel))))),
    )


# ------------------------------------------------------------------ C++ and CUDA


def _computes(stream: Sequence[str]) -> bool:
    """Whether some statement has numbers from memory in arithmetic or a comparison, or moves them to other places."""
    loaded, statement = set[str](), list[str]()
    for token in (*stream, ";"):
        if token not in (";", "{", "}"):
            statement += [] if token.startswith("#") else [token]
            continue
        if _is_work(statement, loaded):
            return True
        loaded |= _loads(statement, loaded)
        statement = []
    return False


def _is_work(statement: list[str], loaded: set[str]) -> bool:
    if any(token in _ALGORITHMS or _INTRINSIC.fullmatch(token) for token in statement):
        return True
    numbers = "[" in statement or not loaded.isdisjoint(statement)
    if not numbers:
        return False
    for i, token in enumerate(statement):
        before, after = statement[i - 1] if i else "", statement[i + 1] if i + 1 < len(statement) else ""
        if token in _ARITHMETIC and (before == "]" or before in loaded or after in loaded):
            return True
        if token in _IN_PLACE and ("[" in statement[i:] or before == "]" or not loaded.isdisjoint(statement[i:])):
            return True
        if token in _MATHS and after == "(":
            return True
        if token in ("++", "--") and "[" in statement[i + 1 : i + 3]:
            return True
    return _moves(statement)


def _moves(statement: list[str]) -> bool:
    """`b[i] = a[j]`: other places on both sides. `b[i] = a[i]` is a copy."""
    if "=" not in statement or "]" not in statement:
        return False
    at = statement.index("=")
    left, right = statement[:at], statement[at + 1 :]
    if left[-1:] != ["]"] or "[" not in right:
        return False
    return left[left.index("[") :] != right[right.index("[") :]


def _loads(statement: list[str], loaded: set[str]) -> set[str]:
    """Names that the statement gives a number from memory, or one computed of such."""
    if "=" not in statement or not _WHOLE.isdisjoint(statement[:2]):
        return set()
    at = statement.index("=")
    right = statement[at + 1 :]
    holds = "[" in right or not loaded.isdisjoint(right)
    return {statement[at - 1]} if holds and at and is_name(statement[at - 1]) and "*" not in statement[:at] else set()


def _library(stream: Sequence[str], defined: frozenset[str]) -> set[str]:
    """Operators of torch that are called, by name, and symbols of other libraries."""
    found, called = set[str](), set[str]()
    for i, token in enumerate(stream[:-1]):
        if stream[i + 1] not in ("(", "<"):
            continue
        before = tuple(stream[max(i - 4, 0) : i])
        name = token.removesuffix("_out").removesuffix("_")
        of_torch = before[-2:] in _NAMESPACES and name in COMPUTING
        if of_torch or (before[-1:] == (".",) and name in PRODUCTS | LAYERS):
            found.add(name)
        elif before[-1:] not in ((".",), ("->",), ("::",)):
            called.add(token)
    found |= {"Python" for i in range(len(stream)) if _follows(stream, i, "module_", "::", "import")}
    return found | set(filter(LIBRARIES.fullmatch, called - defined))


def _hides(stream: Sequence[str]) -> set[str]:
    found = set(_HIDING & set(stream))
    if any(_follows(stream, i, "TORCH_LIBRARY_IMPL", "(", "aten") for i in range(len(stream))):
        found.add("TORCH_LIBRARY_IMPL(aten)")
    if any(_follows(stream, i, "at", "::", "native", "::") and stream[i + 4 : i + 5] != ("at",) for i in range(len(stream))):
        found.add("at::native")
    return found


def _detached(stream: Sequence[str]) -> bool:
    words = set(stream)
    thread = "thread" in words and any(_follows(stream, i, ".", "detach", "(", ")") for i in range(len(stream)))
    stream_made = any(word.startswith("cudaStreamCreate") for word in words)
    return thread or (stream_made and words.isdisjoint(_STREAM_WAITS))


def _follows(stream: Sequence[str], at: int, *wanted: str) -> bool:
    return tuple(stream[at : at + len(wanted)]) == wanted


def _means(stream: Sequence[str]) -> Iterator[str]:
    words = frozenset(stream)
    pragmas = " ".join(token for token in words if token.startswith("#pragma"))
    if "omp parallel" in pragmas or {"parallel_for", "thread"} & words or "<<<" in words:
        yield "parallel"
    if (
        "omp simd" in pragmas
        or "for simd" in pragmas
        or any(w.startswith(("_mm", "__m1", "__m2", "__m5", "Vectorized")) for w in words)
    ):
        yield "vector instructions"
    if {"float4", "float2", "half2", "__half2", "int4", "uint4", "vector_size"} & words:
        yield "vector loads"
    if {"__shared__", "extern __shared__"} & words:
        yield "shared memory"
    if any(w.startswith(("__shfl", "__reduce_", "__ballot")) for w in words) or "cooperative_groups" in words:
        yield "warp exchange"
    if {"wmma", "mma_sync", "__dp4a", "ldmatrix"} & words or any("mma.sync" in w for w in words if w.startswith('"')):
        yield "matrix units"
    if {"memcpy_async", "__pipeline_memcpy_async"} & words or any("cp.async" in w for w in words if w.startswith('"')):
        yield "asynchronous copies"
    if any(_blocked(stream, i) for i, token in enumerate(stream) if token == "for"):
        yield "blocks"
    if "unroll" in pragmas:
        yield "unrolled loops"
    if "reduction" in pragmas:
        yield "parallel reduction"


def _blocked(stream: Sequence[str], at: int) -> bool:
    """`for (...; ...; i += BLOCK)`: steps of more than one."""
    depth = 0
    for i in range(at + 1, min(at + 80, len(stream) - 1)):
        depth += (stream[i] == "(") - (stream[i] == ")")
        if depth == 0:
            return False
        if stream[i] == "+=":
            return stream[i + 1] != "1"
    return False


# ------------------------------------------------------------------ Triton


def _launched(program: Program) -> list[ast.FunctionDef]:
    """Triton functions that are launched somewhere, and those that they call."""
    queue = sorted(_roots(program))
    seen = set(queue)
    while queue:
        for name in {_jit_name(program, node) for node in ast.walk(program.jit[queue.pop()])} - seen - {""}:
            seen.add(name)
            queue.append(name)
    return [program.jit[name] for name in sorted(seen)]


def _roots(program: Program) -> set[str]:
    """Triton functions that something else than one of them names."""
    inside = {id(node) for kernel in program.jit.values() for node in ast.walk(kernel)}
    return {name for node in program.nodes if (name := _jit_name(program, node)) and id(node) not in inside}


def _jit_name(program: Program, node: ast.AST) -> str:
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name if name in program.jit else ""


_OF_PLACES = frozenset({"store", "arange", "program_id", "num_programs", "cdiv"})


def _triton_computes(program: Program) -> bool:
    """Whether some kernel has a number that was loaded in arithmetic, be it in a function that it hands the number to."""
    queue = [(name, frozenset[str]()) for name in sorted(_roots(program))]
    seen = set(queue)
    while queue:
        name, given = queue.pop()
        body = _Body(program, program.jit[name], given)
        if body.computes():
            return True
        more = set(body.handed()) - seen
        seen |= more
        queue += sorted(more, key=lambda call: (call[0], *sorted(call[1])))
    return False


class _Body:
    """One Triton function, of whose parameters some are `given` numbers that were loaded."""

    def __init__(self, program: Program, kernel: ast.FunctionDef, given: frozenset[str]) -> None:
        self._program, self._nodes, self._numbers = program, list(ast.walk(kernel)), set(given)
        assigned = [node for node in self._nodes if isinstance(node, ast.Assign)]
        known = -1
        while known < len(self._numbers):
            known = len(self._numbers)
            for node in assigned:
                if self._is_number(node.value) or _calls_of(program, node.value) & {"load", "dot", "zeros", "full"}:
                    names = (part for target in node.targets for part in ast.walk(target))
                    self._numbers |= {name.id for name in names if isinstance(name, ast.Name)}

    def _is_number(self, node: ast.AST) -> bool:
        """Whether it is one that was loaded, or what a function made of one."""
        match node:
            case ast.Name():
                return node.id in self._numbers
            case ast.UnaryOp(operand=inner) | ast.Subscript(value=inner):
                return self._is_number(inner)
            case ast.Call():
                operator = _operator(self._program, node)
                return operator == "load" or (operator not in _OF_PLACES and any(map(self._is_number, node.args)))
        return False

    def computes(self) -> bool:
        """In arithmetic that is no arithmetic of addresses: outside of what `tl.load` is given."""
        for node in self._nodes:
            operands: list[ast.expr] = []
            if isinstance(node, ast.BinOp):
                operands = [node.left, node.right]
            elif isinstance(node, ast.AugAssign):
                operands = [node.target, node.value]
            elif isinstance(node, ast.Call) and _operator(self._program, node) not in ("", "load", *_OF_PLACES):
                operands = [*node.args]
            if any(map(self._is_number, operands)):
                return True
        return False

    def handed(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Other Triton functions that it calls, with the parameters for which it gives numbers."""
        for node in self._nodes:
            name = _jit_name(self._program, node.func) if isinstance(node, ast.Call) else ""
            if name and isinstance(node, ast.Call):
                parameters = [a.arg for a in self._program.jit[name].args.args]
                given = {p for p, value in zip(parameters, node.args, strict=False) if self._is_number(value)}
                given |= {word.arg for word in node.keywords if word.arg and self._is_number(word.value)}
                yield name, frozenset(given)


def _triton_means(program: Program, kernel: ast.FunctionDef) -> Iterator[str]:
    yield "parallel"
    called = _calls_of(program, kernel)
    if "arange" in called or "make_block_ptr" in called:
        yield "blocks"
    if "dot" in called:
        yield "matrix units"
    if called & {"sum", "max", "min", "reduce", "associative_scan", "cumsum", "argmax", "argmin", "xor_sum"}:
        yield "parallel reduction"
    if any(isinstance(node, ast.For) for node in ast.walk(kernel)) and "load" in called:
        yield "loop over blocks"
    if any("autotune" in program.dotted(d.func) for d in kernel.decorator_list if isinstance(d, ast.Call)):
        yield "autotuned"
    if any(word.arg == "eviction_policy" for node in ast.walk(kernel) if isinstance(node, ast.Call) for word in node.keywords):
        yield "cache hints"


def _operator(program: Program, node: ast.AST) -> str:
    """`load` for `tl.load(...)`."""
    path = program.dotted(node.func) if isinstance(node, ast.Call) else ""
    return path.rpartition(".")[2] if path.startswith("triton.") else ""


def _calls_of(program: Program, node: ast.AST) -> set[str]:
    return {_operator(program, part) for part in ast.walk(node)} - {""}
