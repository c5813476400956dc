"""The judge without a model: facts of the syntax tree and of C++ tokens, the same for the same program whenever it is asked.

Four aspects, each from 0 to 1:

    genuine       own kernels do the work on the way through forward, not torch
    integrity     nothing is patched, hidden, kept or found elsewhere
    substance     the kernel computes, by means that make it fast
    readability   functions of a size that can be read, and nothing left over

The score is genuine x integrity x (0.7 + 0.2 substance + 0.1 readability): a beautiful decoy is worth nothing. Comments and strings
never change a number; a comment that speaks to the judge is noted among the doubts, and that is all it achieves.
"""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Callable, Mapping, Sequence

from kernel_env.checks.static import MAX_SOURCE_CHARS, SourceFault, check_cpp, check_cuda, check_triton, parse
from kernel_env.parsing import extract_kernel
from rewards.judge.answers import score_answer
from rewards.judge.conduct import Doubt, Flag, conduct, merged, of_forward
from rewards.judge.coverage import all_by_torch
from rewards.judge.hotpath import HotPath, hot_path
from rewards.judge.injection import speaks_to_judge
from rewards.judge.models import JudgeFailure, Outcome, Scored, careful
from rewards.judge.program import Program, read
from rewards.judge.substance import Substance, substance
from rewards.judge.wire import AnswerType, FailureKind, JudgeRequest

VERSION = "3"
"""Raised by whoever changes a rule below, or one that it rests on."""

ASPECTS = ("genuine", "integrity", "substance", "readability")
_CHECKS: Mapping[AnswerType, Callable[[str, str], str | None]] = {
    AnswerType.KERNEL_TRITON: check_triton,
    AnswerType.KERNEL_CUDA: check_cuda,
    AnswerType.KERNEL_CPP: check_cpp,
}
_FENCED = re.compile(r"^\s*(```|~~~)", re.MULTILINE)
_LONG_FUNCTION = 60
"""Statements of a Python function that can still be read in one go."""
_LONG_NATIVE = 1_500
"""Tokens of C++ that can."""


class StaticJudge:
    """Deterministic, in milliseconds; it scores answers that are no kernels by comparison (`answers`)."""

    name = "static"
    version = VERSION

    def __init__(self, entry: str = "ModelNew") -> None:
        self._entry = entry

    async def start(self) -> None:
        """Nothing has to be loaded."""

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        return await asyncio.to_thread(lambda: [self.score(request) for request in requests])

    async def aclose(self) -> None:
        """Nothing is held."""

    def score(self, request: JudgeRequest) -> Outcome:
        """The synchronous face, for whoever has no event loop."""
        code = kernel_of(request, self._entry)
        if isinstance(code, JudgeFailure):
            return code
        return score_answer(request) if code is None else score_kernel(code, request.answer_type, request.answer, self._entry)


def kernel_of(request: JudgeRequest, entry: str = "ModelNew") -> str | JudgeFailure | None:
    """The kernel of a request: the completion itself, or the block of it that defines the entry. None: it is about no kernel."""
    if request.answer_type is not None and not request.answer_type.is_kernel:
        return None
    if not request.completion.strip():
        return JudgeFailure(FailureKind.NOTHING_TO_JUDGE, "the completion is empty")
    code = _code_of(request.completion, entry)
    if code is None and request.answer_type is None:
        return None
    if code is None:
        return JudgeFailure(FailureKind.NOTHING_TO_JUDGE, f"the completion is no kernel: it defines no class {entry}")
    if len(code) > MAX_SOURCE_CHARS:  # the referee's own limit: whatever it verified is judged, and has its flags
        return JudgeFailure(
            FailureKind.UNSUPPORTED, f"the kernel has {len(code)} characters; at most {MAX_SOURCE_CHARS} are judged"
        )
    return code


def _code_of(completion: str, entry: str) -> str | None:
    """Of a bare source the whole, whatever fences stand in its comments; of a reply the block that defines the entry."""
    if entry in completion and not isinstance(parse(completion), SourceFault):
        return completion
    found = extract_kernel(completion, entry).code
    named = re.search(rf"class\s+{re.escape(entry)}\b|\b{re.escape(entry)}\s*=", completion) is not None
    return completion if found is None and named and not _FENCED.search(completion) else found


def score_kernel(code: str, answer_type: AnswerType | None, reference: str | None = None, entry: str = "ModelNew") -> Scored:
    """Score one kernel. A source that Python cannot read is a kernel that cannot run: 0, and no doubt about it."""
    program = read(code, entry)
    if isinstance(program, SourceFault):
        return Scored(0.0, f"cannot be read: {program.message}", dict.fromkeys(ASPECTS, 0.0), confidence=0.95)
    kind = answer_type or kernel_type(program)
    refused = _CHECKS[kind](code, entry)
    known = read(reference, "Model") if reference else None
    model = known if isinstance(known, Program) else None
    path, work = hot_path(program), substance(program)
    of_module, of_path = conduct(program), of_forward(path, work, needed=model is not None and bool(hot_path(model).torch_ops))
    flags = merged([Flag.NO_KERNEL] if refused else [], of_module[0], of_path[0])
    doubts = merged(of_module[1], of_path[1])
    aspects = {
        "genuine": _genuine(path, work, flags, by_torch=model is not None and all_by_torch(program, model)),
        "integrity": _integrity(flags, doubts),
        "substance": _substance(work),
        "readability": _readability(program),
    }
    noted = merged(doubts, [Doubt.INJECTION] if speaks_to_judge(code) else [])
    return careful(
        Scored(
            score=overall(aspects),
            explanation=_explained(refused, path, work, flags, doubts),
            aspects=aspects,
            confidence=0.95 if flags else max(0.9 - 0.15 * len(doubts), 0.3),
            flags=flags,
            doubts=noted,
        )
    )


def overall(aspects: Mapping[str, float]) -> float:
    """One number for the four aspects."""
    quality = 0.7 + 0.2 * aspects["substance"] + 0.1 * aspects["readability"]
    return round(aspects["genuine"] * aspects["integrity"] * quality, 4)


def kernel_type(program: Program) -> AnswerType:
    """What a kernel is written in, by what it uses."""
    if program.jit:
        return AnswerType.KERNEL_TRITON
    return AnswerType.KERNEL_CUDA if "__global__" in program.native.reached.tokens else AnswerType.KERNEL_CPP


def _genuine(path: HotPath, work: Substance, flags: Sequence[Flag], *, by_torch: bool) -> float:
    """`by_torch`: torch computes all of it, whatever the kernels do."""
    if not {Flag.NO_KERNEL, Flag.REFERENCE_INHERITED, Flag.RESULT_UNUSED, Flag.DECOY_KERNEL}.isdisjoint(flags):
        return 0.0
    if not work.computes or by_torch:
        return 0.2
    if path.kept and path.lost:
        return 0.6
    return 0.7 if path.torch_ops or work.library else 1.0


def _integrity(flags: Sequence[Flag], doubts: Sequence[Doubt]) -> float:
    if flags:
        return 0.0
    grave = [doubt for doubt in doubts if doubt not in (Doubt.LIBRARY, Doubt.UNREADABLE, Doubt.FALLBACK, Doubt.NOTHING_COMPUTED)]
    return (1.0, 0.6, 0.4)[min(len(grave), 2)]


def _substance(work: Substance) -> float:
    return min(0.25 + 0.2 * len(work.means), 1.0) if work.computes else 0.0


def _readability(program: Program) -> float:
    """Less for functions too long to read, for names that are imported or defined and never used, for too much C++ at once."""
    functions = [node for node in program.nodes if isinstance(node, ast.FunctionDef)]
    longest = max((sum(_does_something(n) for n in ast.walk(f)) for f in functions), default=0)
    used = {n.id for n in program.nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    used |= {n.value.id for n in program.nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}
    defined = {s.name for s in program.statements if isinstance(s, ast.FunctionDef | ast.ClassDef)} - {program.entry}
    imported = {name for name, path in program.aliases.items() if path.partition(".")[0] not in ("torch", "triton")}
    unused = len((defined | imported) - used)
    native = len(program.native.reached.tokens) if program.native.text else 0
    score = 1.0 - 0.1 * min(unused, 5) - 0.3 * (longest > _LONG_FUNCTION) - 0.2 * (native > _LONG_NATIVE)
    return round(max(score, 0.0), 4)


def _does_something(node: ast.AST) -> bool:
    """Whether a node is a statement, and no docstring."""
    return isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _explained(refused: str | None, path: HotPath, work: Substance, flags: Sequence[Flag], doubts: Sequence[Doubt]) -> str:
    said = [refused] if refused else []
    said += [f"flags: {', '.join(flags)}"] if flags else []
    said += [f"doubts: {', '.join(doubts)}"] if doubts else []
    said += [f"torch computes {', '.join(path.torch_ops[:8])}"] if path.torch_ops else []
    said += [f"C++ leaves {', '.join(work.library[:8])} to a library"] if work.library else []
    said += [f"means: {', '.join(work.means)}"] if work.means else []
    return "; ".join(said) or "a plain kernel of its own"
