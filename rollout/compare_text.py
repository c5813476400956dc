"""A comparison as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rollout.compare import SIGNIFICANT, Comparison, Difference, Pair, Side, Standing, Versus
from rollout.conduct import Fit
from rollout.markdown import NONE, cell, number, share, speedup, table, warning
from rollout.metrics import Kind

_LISTED = 20
_KINDS_SHOWN = 5


def comparison_text(found: Comparison) -> str:
    sections = (_head(found), _numbers(found.sides), _played(found.sides), *map(_against, found.against_first))
    return "\n".join(line for section in sections for line in (*section, ""))


def _head(found: Comparison) -> Iterator[str]:
    names = [side.name for side in found.sides]
    yield f"# Comparison: {cell(', '.join(names[1:]))} against {cell(names[0])}"
    yield ""
    if found.mixed:
        yield from warning(f"the numbers do not mean the same in all runs, which differ in {cell('; '.join(found.mixed))}.")
    for side in found.sides:
        for text in side.cautions:
            yield from warning(f"{cell(side.name)}: {text}")
    yield from table(("What ran", *names), _facts(found.sides))


def _facts(sides: Sequence[Side]) -> Iterator[tuple[str, ...]]:
    yield "Policy", *(side.policy for side in sides)
    yield "Models", *(", ".join(side.models) or NONE for side in sides)
    for name in sides[0].conditions:
        yield name.capitalize(), *(side.conditions[name] or NONE for side in sides)
    yield "Turn limit, gamma", *(f"{side.conduct.turn_limit}, {side.conduct.gamma:g}" for side in sides)
    yield "Problems asked for", *(str(side.metrics.problems) for side in sides)
    yield "Samples asked for", *(str(side.summary.total) for side in sides)
    for name in ("completed", "unscored", "cancelled", "infra_errors", "policy_failures", "not_run"):
        yield f"- {name.replace('_', ' ')}", *(str(getattr(side.summary, name)) for side in sides)


def _numbers(sides: Sequence[Side]) -> Iterator[str]:
    yield "## Each run by itself"
    yield ""
    yield "Shares are of all problems that the run was asked for: what was not scored is no success. Brackets hold 95% intervals."
    yield ""
    yield from table(("Number", *(side.name for side in sides)), _number_rows(sides))


def _number_rows(sides: Sequence[Side]) -> Iterator[tuple[str, ...]]:
    metrics = [side.metrics for side in sides]
    yield "Correct", *(share(m.correct) for m in metrics)
    for index, first in enumerate(metrics[0].fast_p):
        yield f"fast_{first.p:g}", *(share(m.fast_p[index].asked) for m in metrics)
    for k in sorted({found.k for m in metrics for found in m.pass_at_k if found.k > 1}):
        yield f"pass@{k}", *(next((share(f.correct) for f in m.pass_at_k if f.k == k), NONE) for m in metrics)
    yield "Speedup, geometric mean", *(f"{number(m.speedup, '.2f', 'x')} of {m.speedup.of} samples" for m in metrics)
    yield "Speed-of-light share", *(f"{share(m.speed_of_light)} of {m.speed_of_light.of} samples" for m in metrics)
    for turn in range(max(len(m.by_turn) for m in metrics)):
        cells = (number(m.by_turn[turn].reward) if len(m.by_turn) > turn else NONE for m in metrics)
        yield f"Average best reward by turn {turn + 1}", *cells
    for turn in range(max(len(m.steps) for m in metrics)):
        cells = (number(m.steps[turn].change, "+.3f") if len(m.steps) > turn else NONE for m in metrics)
        yield f"Average change into turn {turn + 2}", *cells
    yield "Tokens per solved problem", *(_tokens(side) for side in sides)
    yield "Seconds of replies per solved problem", *(number(m.spending.policy_s_per_solved, ".1f") for m in metrics)
    costs = [m.spending.cost_per_solved for m in metrics]
    yield "Cost per solved problem", *(NONE if cost is None else number(cost, ".4g") for cost in costs)
    yield "What went wrong in turns", *(_kinds(m.turn_errors) for m in metrics)
    yield "What ended episodes", *(_kinds(m.episode_errors) for m in metrics)


def _tokens(side: Side) -> str:
    spent = side.metrics.spending
    return number(spent.tokens_per_solved, ",.0f") if spent.prompt_tokens + spent.completion_tokens else NONE


def _kinds(kinds: Sequence[Kind]) -> str:
    shown = [f"{kind.count} {kind.name}{f' ({kind.reason})' if kind.reason else ''}" for kind in kinds[:_KINDS_SHOWN]]
    return ", ".join(shown + (["..."] if len(kinds) > _KINDS_SHOWN else [])) or NONE


def _played(sides: Sequence[Side]) -> Iterator[str]:
    yield "## How episodes were played"
    yield ""
    yield "Found out from the turns: the known rule that explains most of them, and how many."
    yield ""
    yield from table(("What", *(side.name for side in sides)), _conduct_rows(sides))


def _conduct_rows(sides: Sequence[Side]) -> Iterator[tuple[str, ...]]:
    all_of = [side.conduct for side in sides]
    yield "Replies an episode", *(f"{c.turns / c.episodes:.2f} ({c.episodes} episodes)" if c.episodes else NONE for c in all_of)
    yield "Messages shown, turn by turn", *(_counts(c.messages_T) for c in all_of)
    yield "Message accumulation", *(_fit(c.history) for c in all_of)
    yield "Words between turns", *(_fit(c.feedback) for c in all_of)
    yield "Reward calculation", *(_fit(c.rewards) for c in all_of)
    yield "Ends at a reward of", *(_fit(c.stop) for c in all_of)
    yield "Highest reward that went on", *(NONE if c.went_on_at is None else f"{c.went_on_at:.3f}" for c in all_of)
    yield "Lowest reward that ended early", *(NONE if c.ended_at is None else f"{c.ended_at:.3f}" for c in all_of)
    yield "Episodes ended early", *(f"{c.solved_early} solved, {c.broken_off} in another way" for c in all_of)


def _counts(messages_T: Sequence[Sequence[int]]) -> str:
    return ", ".join("/".join(map(str, counts)) or "unknown" for counts in messages_T) or NONE


def _fit(found: Fit) -> str:
    if not found.of:
        return NONE
    return f"{' or '.join(found.rules) or 'no known rule'}: {found.count} of {found.of}"


def _against(versus: Versus) -> Iterator[str]:
    better, worse = ([p for p in versus.pairs if p.change == change] for change in ("better", "worse"))
    yield f"## {cell(versus.run)} against {cell(versus.base)}"
    yield ""
    yield (
        f"Paired over the {len(versus.pairs)} problems that have a completed sample in both, each with the mean of its samples "
        f"({_samples(versus.pairs)})."
    )
    yield from _left_out(versus)
    yield ""
    head = ("Mean over problems", versus.base, versus.run, "difference", "problems", "p")
    yield from table(head, map(_difference, versus.differences))
    yield ""
    drawn = "" if all(d.exact for d in versus.differences) else ", or of those drawn (~)"
    yield f"p: two-sided sign-flip permutation test over problems, the share of all assignments of signs{drawn} whose sum is as far"
    yield "from 0, not adjusted for the number of rows. Speedups are geometric means over problems with a timed correct kernel in"
    yield "both; their difference is a ratio."
    alike = len(versus.pairs) - len(better) - len(worse)
    yield f"Of {len(versus.pairs)} problems {len(better)} got better, {len(worse)} worse, {alike} neither."
    if any(pair.before.samples != pair.after.samples for pair in versus.pairs):
        yield "For speed the fastest of its samples stands for a problem: the run with more of them had more tries."
    for title, pairs in (("Better", better), ("Worse", worse)):
        if pairs:
            yield ""
            yield f"### {title}"
            yield ""
            yield from _listed(versus, pairs)


def _samples(pairs: Sequence[Pair]) -> str:
    """How many samples a problem has, in both."""
    before, after = ({getattr(pair, side).samples for pair in pairs} for side in ("before", "after"))
    spans = (f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}" for counts in (before, after))
    return " against ".join(spans)


def _left_out(versus: Versus) -> Iterator[str]:
    reasons = {
        f"{versus.run} was not asked for": versus.only_base,
        f"{versus.base} was not asked for": versus.only_run,
        f"only {versus.base} has a completed sample": versus.lost,
        f"only {versus.run} has a completed sample": versus.gained,
        "neither has a completed sample": versus.neither,
    }
    for reason, keys in reasons.items():
        if keys:
            shown = ", ".join(keys[:_LISTED]) + (", ..." if len(keys) > _LISTED else "")
            yield f"Left out, because {cell(reason)}: {len(keys)} ({shown})."


def _difference(found: Difference) -> tuple[str, ...]:
    form, unit = {"speedup": (".2f", "x"), "tokens": (",.0f", "")}.get(found.what, (".3f", ""))
    change = number(found.change, form if found.what == "speedup" else f"+{form}", unit)
    p = f"{'' if found.exact else '~'}{found.p:.4f}{' *' if found.p < SIGNIFICANT else ''}"
    return found.what, f"{found.before:{form}}{unit}", f"{found.after:{form}}{unit}", change, str(found.change.of), p


def _listed(versus: Versus, pairs: Sequence[Pair]) -> Iterator[str]:
    """Those that changed most in reward first."""
    ordered = sorted(pairs, key=lambda pair: -abs(pair.after.reward - pair.before.reward))
    rows = ((pair.problem, pair.name, _standing(pair.before), _standing(pair.after)) for pair in ordered[:_LISTED])
    yield from table(("Problem", "name", versus.base, versus.run), rows)
    if len(pairs) > _LISTED:
        yield ""
        yield f"And {len(pairs) - _LISTED} more, with less of a change."


def _standing(found: Standing) -> str:
    correct = f"{found.correct:.0%} correct" if found.samples > 1 else "correct" if found.correct else "not correct"
    fastest = "" if found.timing is None else f", {speedup(found.timing)}"
    return f"{correct}, reward {found.reward:.2f}{fastest}"
