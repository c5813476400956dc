"""Answers that can be compared: numbers, expressions, letters and plain text.

The completion's answer is what it ends with: the last `boxed{...}`, else what follows the last "answer is", else the last line. All
else of the completion is not looked at, so whoever writes every option down has chosen the last.
"""

from __future__ import annotations

import re

from kernel_env.parsing import without_thinking
from rewards.judge.algebra import number, same_value
from rewards.judge.models import JudgeFailure, Outcome, Scored
from rewards.judge.wire import AnswerType, FailureKind, JudgeRequest

_BOXED = re.compile(r"\\?\b(?:f?boxed)\s*\{")
_ANSWER = re.compile(r"(?i)\b(?:final\s+)?answer\s*(?:is|:|=)\s*:?\s*")
_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-Z])\)?(?![A-Za-z'’])")
_MARKS = " \t\n$*`.,;:。"
_LATEX_SPACE = re.compile(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}")
_NUMBER = re.compile(r"-?\$?\s?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?(?:\s*/\s*\d+)?\s?\\?%?")
_TAIL_CHARS = 4_000
"""Of a longer completion only the end is read: an answer stands last."""


def score_answer(request: JudgeRequest) -> Outcome:
    """Exact and symbolic comparison with `request.answer`."""
    if request.answer is None or not request.answer.strip():
        kind = request.answer_type or "a completion that is no kernel"
        return JudgeFailure(
            FailureKind.UNSUPPORTED, f"{kind} is compared with an answer: send `answer`, or ask a judge with a model"
        )
    said = final_answer(without_thinking(request.completion))
    if not said:
        return JudgeFailure(FailureKind.NOTHING_TO_JUDGE, "the completion is empty")
    right = _bare(final_answer(request.answer))
    match request.answer_type:
        case AnswerType.MULTIPLE_CHOICE:
            return _compared(_letter(said), _letter(right) or right.upper(), 1.0)
        case AnswerType.NUMBER:
            return _number(said, right)
        case _:
            return _expression(said, right, 1.0 if request.answer_type else 0.6)


def final_answer(text: str) -> str:
    """What a text ends with as its answer, bare of marks around it; "" for an empty text."""
    text = text[-_TAIL_CHARS:]
    boxed = _last_boxed(text)
    if boxed is not None:
        return _bare(boxed)
    said = list(_ANSWER.finditer(text))
    lines = [line for line in (text[said[-1].end() :] if said else text).splitlines() if line.strip(_MARKS)]
    return _bare(lines[0 if said else -1]) if lines else ""


def _last_boxed(text: str) -> str | None:
    for opening in reversed(list(_BOXED.finditer(text))):
        depth = 1
        for i in range(opening.end(), len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if depth == 0:
                return text[opening.end() : i]
    return None


def _bare(text: str) -> str:
    return _LATEX_SPACE.sub(r"\1", text).strip(_MARKS)


def _letter(text: str) -> str:
    """The one letter that is chosen, "" where there is none or more than one."""
    if re.fullmatch(r"\(?[A-Za-z]\)?", text):
        return text.strip("()").upper()
    found = list(dict.fromkeys(_LETTER.findall(text.removeprefix("I "))))
    leading = re.match(r"\(?([A-Z])[).:]\s", text + " ")
    return leading[1] if leading else found[0] if len(found) == 1 else ""


def _number(said: str, right: str) -> Outcome:
    wanted = number(right)
    if wanted is None:
        return JudgeFailure(FailureKind.UNSUPPORTED, f"the answer {right[:60]!r} is no number: send another answer_type")
    got = number(said.rpartition("=")[2])
    if got is None:  # a unit, or words around it
        inside = _NUMBER.findall(said)
        got = number(inside[-1].replace("$", "")) if len(inside) == 1 else None
    if got is None:
        return Scored(0.0, f"no single number in {said[:80]!r}", {"correctness": 0.0}, confidence=0.9)
    return _judged(got == wanted, f"{got} against {wanted}", 1.0)


def _expression(said: str, right: str, confidence: float) -> Outcome:
    pair = _plain(said), _plain(right)
    if pair[0] == pair[1]:
        return _judged(True, "the same text", confidence)
    if "," in right and number(right) is None:
        parts = [_parts(said), _parts(right)]
        if len(parts[0]) == len(parts[1]) > 1:
            same = all(_same(a, b) for a, b in zip(*parts, strict=True))
            return _judged(same, "compared one by one", confidence)
    return _judged(_same(said, right), "compared as expressions", confidence)


def _same(one: str, other: str) -> bool:
    """`x = 3` is 3 where the other has no equation."""
    if ("=" in one) != ("=" in other):
        one, other = one.rpartition("=")[2], other.rpartition("=")[2]
    elif one.count("=") == 1 and other.count("=") == 1:
        return all(_same(a, b) for a, b in zip(one.split("="), other.split("="), strict=True))
    exact = number(one), number(other)
    if exact[0] is not None and exact[1] is not None:
        return exact[0] == exact[1]
    return _plain(one) == _plain(other) or bool(same_value(one, other))


def _parts(text: str) -> list[str]:
    """Of `(1, 2)`: split at commas outside of brackets, with the outer brackets off."""
    text = text.strip()
    if text[:1] in "([{" and text[-1:] in ")]}":
        text = text[1:-1]
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _plain(text: str) -> str:
    return re.sub(r"\\[,;! ]|\s+", "", text).casefold()


def _compared(said: str, right: str, confidence: float) -> Outcome:
    if not said:
        return Scored(0.0, "no single letter is chosen", {"correctness": 0.0}, confidence=0.9)
    return _judged(said == right, f"{said} against {right}", confidence)


def _judged(same: bool, explanation: str, confidence: float) -> Scored:
    score = float(same)
    return Scored(score, explanation, {"correctness": score}, confidence=confidence)
