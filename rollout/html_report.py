"""The report of a run as one HTML file that needs nothing else: figures, a table of problems, and every turn a click away.

Texts of turns are most of it. They lie in the file compressed, one block an episode, and the browser unpacks those that are looked
at: a run with thousands of turns is a page like any other. Whatever a model, a compiler or a data set wrote reaches the page as
text alone, never as markup: escaped here, or set as text by the script. Besides, the page allows no script but its own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from kernel_env.schema import Episode, Status, Turn, Verdict, episode_key
from rollout.documents import RunInfo, episode_order
from rollout.figures import figures
from rollout.markdown import NONE, blocks, number, share, speedup
from rollout.metrics import Groups, Metrics, best_reward, best_speedup, grouped, is_correct, is_fast

MARKS: Mapping[Status, tuple[str, str]] = {
    Status.CORRECT: ("✓", "good"),
    Status.WRONG_OUTPUT: ("W", "near"),
    Status.MUTATED_INPUTS: ("M", "near"),
    Status.TIMEOUT: ("T", "near"),
    Status.RUNTIME_ERROR: ("R", "bad"),
    Status.OUT_OF_MEMORY: ("O", "bad"),
    Status.CRASHED: ("C", "bad"),
    Status.BUILD_ERROR: ("B", "worse"),
    Status.LOAD_ERROR: ("L", "worse"),
    Status.REJECTED: ("X", "none"),
    Status.TRUNCATED: ("…", "none"),
    Status.NO_CODE: ("N", "none"),
    Status.TAMPERED: ("!", "tampered"),
    Status.NEEDS_DEVICE: ("?", "unscored"),
}
"""The sign of a turn in the table, and the kind of its colour. No two statuses have one sign: colour is never alone."""
_LEVEL = 4
"""Of compression: half the time of the default, for a file that is a tenth larger."""
_PLACE = re.compile(r"<!--(\w+)-->|/\*(\w+)\*/")


def report_page(
    info: RunInfo,
    episodes: Sequence[Episode],
    metrics: Metrics | None,
    sections: Sequence[Sequence[str]],
    texts: Mapping[str, str],
    pictures: Mapping[str, str],
) -> bytes:
    """The whole file. `sections` are those of the Markdown report: first its head, last its table of problems, which has a better
    one here. `texts` are `packed` episodes by their key, `pictures` those of the sections by their file's name."""
    groups = grouped(info.asked, episodes)
    style, script = _part("report.css"), _part("report.js")
    parts = {
        "title": html.escape(info.name),
        "policy": f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'",
        "style": style,
        "script": script,
        "head": "\n".join(blocks(sections[0])),
        "tiles": "".join(_tiles(metrics)) if metrics is not None else "",
        "figures": "\n".join(figures(groups, episodes, metrics)),
        "numbers": "\n".join(line for section in sections[1:-1] for line in blocks(section, pictures)),
        "index": _script_safe(_index(groups)),
        "texts": "\n".join(f'<script type="text/plain" id="{html.escape(key)}">{text}</script>' for key, text in texts.items()),
    }
    page = _PLACE.sub(lambda match: parts[match[1] or match[2]], _part("report.html"))
    return page.encode(errors="backslashreplace")


def packed(episode: Episode) -> str:
    """The turns of an episode as the page's script reads them: JSON, compressed, in base64."""
    texts: dict[str, int] = {}

    def index(text: str) -> int:
        return texts.setdefault(text, len(texts))

    turns = [_turn(turn, index) for turn in episode.turns]
    data = json.dumps({"texts": list(texts), "turns": turns}, separators=(",", ":")).encode()
    packer = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
    return base64.b64encode(packer.compress(data) + packer.flush()).decode()


# ------------------------------------------------------------------ texts of a turn


def _turn(turn: Turn, index: Callable[[str], int]) -> dict[str, Any]:
    """Texts by their index: what a turn was shown is mostly what earlier ones were shown and answered."""
    return {
        "shown": [[message["role"], index(message["content"])] for message in turn.messages],
        "facts": list(_facts(turn)),
        "reasoning": index(turn.generation.reasoning),
        "reply": index(turn.generation.text),
        "code": None if turn.code is None else index(turn.code),
        "message": index(turn.verdict.message),
        "log": index(turn.verdict.log),
        "feedback": index(turn.feedback or ""),
    }


def _facts(turn: Turn) -> Iterator[tuple[str, str]]:
    """The verdict and what came of it, by name."""
    verdict, reward, reply = turn.verdict, turn.reward, turn.generation
    yield "Status", f"{verdict.status}, {verdict.category}" if verdict.category else verdict.status
    yield "Reward", f"unscored: {reward.reason}" if reward.value is None else f"{reward.value:.3f}"
    if reward.parts:
        yield "Parts", ", ".join(f"{name} {NONE if part is None else f'{part:.3f}'}" for name, part in reward.parts.items())
    yield from _times(verdict)
    yield "Trials", f"{verdict.trials_passed} of {verdict.trials} passed, tolerance {verdict.tolerance or NONE}"
    yield "Last stage", verdict.stage
    yield (
        "Verified",
        f"{verdict.backend}, sizes {verdict.profile}, verifier {verdict.mode}, clock {verdict.clock}, seed {verdict.seed}",
    )
    yield "Verification took", f"{verdict.duration_ms / 1e3:.2f} s ({verdict.build_ms / 1e3:.2f} s compiling)"
    if verdict.degenerate:
        yield "Degenerate", "the problem's output hardly varies with its inputs: a constant may pass"
    for compiled in verdict.ahead:
        what = compiled.note or f"{compiled.registers} registers, {compiled.spilled_bytes} bytes spilled"
        yield f"{compiled.target} {compiled.kernel}".strip(), f"{what}, {compiled.shared_bytes} bytes shared"
    yield "Reply", f"{reply.model or NONE}, {reply.duration_s:.1f} s, ended by {reply.finish_reason}"
    yield "Tokens", f"{reply.usage.prompt_tokens} of the prompt, {reply.usage.completion_tokens} of the reply"
    if turn.thinking is not None:
        asked = f", said {turn.thinking.answer!r}" if turn.thinking.answer else ""
        yield "Long thinking", f"{'on' if turn.thinking.on else 'off'} ({turn.thinking.arm}{asked})"


def _times(verdict: Verdict) -> Iterator[tuple[str, str]]:
    timing = verdict.timing
    if timing is not None:
        yield "Speedup", speedup(timing)
        yield "Times", f"{timing.runtime.median_ms:.4g} ms, baseline {timing.baseline.median_ms:.4g} ms (medians)"
        yield "Noise", f"{timing.noise:.0%} of the time was waiting for a core"
    elif verdict.timing_note:
        yield "Speedup", f"unknown: {verdict.timing_note}"


# ------------------------------------------------------------------ the index


def _index(groups: Groups) -> str:
    """What the table shows: small, and read when the page opens."""
    problems = [_problem(key, group) for key, group in groups.items()]
    return json.dumps({"marks": MARKS, "problems": problems}, separators=(",", ":"))


def _problem(key: str, group: Sequence[Episode | None]) -> dict[str, Any]:
    level, problem_id, _ = episode_order(key)
    posed = next((episode.problem for episode in group if episode is not None), None)
    speedups = [found for episode in group if (found := best_speedup(episode)) is not None]
    rewards = [found for episode in group if (found := best_reward(episode)) is not None]
    return {
        "key": key,
        "id": problem_id,
        "level": level,
        "name": posed.name if posed else "",
        "correct": sum(map(is_correct(), group)),
        "fast": sum(map(is_fast(1.0), group)),
        "speedup": _rounded(max(speedups, default=None), 2),
        "reward": _rounded(max(rewards, default=None), 3),
        "samples": [_sample(episode_key(key, place), episode) for place, episode in enumerate(group)],
    }


def _sample(key: str, episode: Episode | None) -> dict[str, Any]:
    if episode is None:
        return {"key": key, "end": "not run", "turns": []}
    turns = [[t.verdict.status, _rounded(t.reward.value, 3), _rounded(t.verdict.speedup, 2)] for t in episode.turns]
    return {"key": episode.key, "end": episode.stop_reason, "why": episode.error, "turns": turns}


def _rounded(value: float | None, digits: int) -> float | None:
    """As the other reports round: of two numbers that are as near a browser takes the larger, Python the even one."""
    return None if value is None else round(value, digits)


def _script_safe(text: str) -> str:
    """JSON that cannot end the element that it stands in."""
    return text.replace("<", "\\u003c")


# ------------------------------------------------------------------ parts


def _tiles(metrics: Metrics) -> Iterator[str]:
    """The few numbers that are asked for first, each with what it is of."""
    asked, spent = f"of all {metrics.problems} problems asked for", metrics.spending
    fast_1 = next(f for f in metrics.fast_p if f.p == 1)
    shown = [
        ("Correct", share(metrics.correct), f"{asked}, mean over their samples"),
        ("fast_1", share(fast_1.asked), asked),
        (
            "Geometric mean speedup",
            number(metrics.speedup, ".2f", "x"),
            f"of {metrics.speedup.of} timed samples of {metrics.samples}",
        ),
        ("Samples completed", f"{metrics.completed:,}", f"of {metrics.samples:,} asked for"),
    ]
    if spent.prompt_tokens + spent.completion_tokens:
        of = f"of {spent.tokens_per_solved.of} solved, with those of failures"
        shown.append(("Tokens per solved problem", number(spent.tokens_per_solved, ",.0f"), of))
    if metrics.pass_at_k[1:]:
        last = metrics.pass_at_k[-1]
        shown.insert(1, (f"pass@{last.k}", share(last.correct), asked))
    for name, value, of in shown:
        figure, _, interval = value.partition(" ")
        yield f'<div class="tile"><h3>{name}</h3><b>{figure}</b> <span>{interval}</span><p>{of}</p></div>'


def _part(name: str) -> str:
    return (resources.files("rollout") / "page" / name).read_text(encoding="utf-8")
