"""The report of a run: `reports/MULTI_TURN_REPORT.md` and `reports/report.html`, with a picture beside them where judges or
predictions have a say in the reward; and the closing table of the terminal.

Computed from the durable episodes alone and without a clock time, so the same run gives the same bytes. Every rate names
its denominator; what was not scored, failed or never ran is listed apart and stays in "asked for".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel_env.printable import printable
from kernel_env.reward import measured_part
from kernel_env.schema import Episode, Status, StopReason, Verdict
from rewards.distribution import Score, distribution
from rewards.picture import picture
from rewards.sources import RULES
from rollout.documents import (
    EpisodeResult,
    Results,
    RunInfo,
    Summary,
    episode_order,
    fastest,
    is_memory_fault,
    results_of,
    without_texts,
)
from rollout.durable import write_file
from rollout.html_report import packed, report_page
from rollout.markdown import NONE, QUIET, cell, number, rate, share, speedup, table, warning
from rollout.metrics import Cost, Groups, Metrics, at_turn, grouped, longest, measure, mixture, step
from rollout.policies.base import Endpoint
from rollout.store import RunReader

if TYPE_CHECKING:
    from rich.table import Table

PAGE = "report.html"
"""Beside the Markdown report."""
_BEST_SHOWN = 10
_FINGERPRINT_SHOWN = 40
_REASONS_SHOWN = 5
_PICTURE = "reward_sources.svg"


def write_report(run: RunReader) -> Path:
    """Writes the run's report, Markdown and HTML, and its picture, and returns the path of the first. Raises ConfigError when the
    run is damaged."""
    path = run.path / "reports" / "MULTI_TURN_REPORT.md"
    path.parent.mkdir(exist_ok=True)
    texts, episodes = {}, []
    for episode in run.each_episode():
        texts[episode.key] = packed(episode)
        episodes.append(without_texts(episode))
    spreads = distribution(_scores(episodes))
    pictures = {_PICTURE: picture(spreads)} if spreads else {}
    for name, drawn in pictures.items():
        write_file(path.parent / name, drawn.encode())
    metrics = _measured(run.info, episodes, cost_of(run))
    found = _sections(run.info, run.environment, episodes, metrics)
    write_file(path, _joined(found).encode(errors="backslashreplace"))
    write_file(path.with_name(PAGE), report_page(run.info, episodes, metrics, found, texts, pictures))
    return path


def cost_of(run: RunReader) -> Cost:
    """By the prices that the run's configuration has."""
    settings = run.settings
    return Endpoint(
        price_per_million_prompt=settings.get("policy.price_per_million_prompt"),
        price_per_million_completion=settings.get("policy.price_per_million_completion"),
    ).cost


def report_text(info: RunInfo, environment: Mapping[str, Any], episodes: Sequence[Episode], cost: Cost = lambda usage: None) -> str:
    """The report, Markdown. `episodes` are those that ended. Metrics are left out where there can be none, and it says so."""
    ordered = sorted(episodes, key=lambda e: episode_order(e.key))
    return _joined(_sections(info, environment, ordered, _measured(info, ordered, cost)))


def _measured(info: RunInfo, episodes: Sequence[Episode], cost: Cost) -> Metrics | None:
    return None if mixture(episodes) else measure(info.asked, episodes, cost)


def _joined(sections: Iterable[Sequence[str]]) -> str:
    return "\n".join(line for section in sections for line in (*section, ""))


def _sections(
    info: RunInfo, environment: Mapping[str, Any], episodes: Sequence[Episode], metrics: Metrics | None
) -> list[list[str]]:
    """The lines of each: first the head, last the table of all problems. `episodes` are in the run's order."""
    results = results_of(info, episodes)
    sections = (
        _head(results, episodes),
        _machine(environment),
        _success(results),
        () if metrics is None else _speed(metrics),
        () if metrics is None else _spending(metrics),
        _turn_analysis(episodes, grouped(info.asked, episodes)),
        () if metrics is None else _best_so_far(metrics),
        _thinking(episodes),
        _reward_sources(episodes),
        _best_performers(results),
        _error_analysis(results.summary, episodes),
        _set_apart(info, episodes),
        _all_problems(results, episodes),
    )
    return [lines for section in sections if (lines := list(section))]


def closing_table(episodes: Iterable[Episode]) -> Table:
    """One line an episode for the terminal: problem, turns, reward of each turn, best speedup, how it ended."""
    from rich.table import Table
    from rich.text import Text

    shown = Table("problem", "turns", "reward per turn", "speedup", "status")
    for episode in sorted(episodes, key=lambda e: episode_order(e.key)):
        timing = fastest(episode)
        cells = (
            printable(f"{episode.key} {episode.problem.name}"),
            str(len(episode.turns)),
            _rewards(episode),
            NONE if timing is None else f"{timing.speedup:.2f}x",
            _status(episode),
        )
        shown.add_row(*map(Text, cells))  # Text: a name with brackets is no markup
    return shown


# ------------------------------------------------------------------ sections


def _head(results: Results, episodes: Sequence[Episode]) -> Iterator[str]:
    meta = results.metadata
    levels = Counter(e.problem.level for e in episodes)
    problems = ", ".join(f"{count} of level {level}" for level, count in sorted(levels.items()))
    yield f"# Multi-turn report: {cell(meta.run_name)}"
    yield ""
    for text in cautions(results, episodes):
        yield from warning(text)
    yield from table(
        ("What ran", ""),
        [
            ("Policy", meta.policy),
            ("Models", _listed(meta.models)),
            ("Episodes", f"{results.summary.total} asked for, {len(episodes)} ended ({problems or 'none'})"),
            ("Back end", _listed(meta.backends)),
            ("Size profile", _listed(meta.profiles)),
            ("Tolerance", _listed(meta.tolerances)),
            ("Verification", _listed(meta.verification)),
            ("Clock", _listed(meta.clocks)),
            ("Turn limit, gamma", f"{meta.max_turns}, {meta.gamma:g}"),
            ("Master seed", str(meta.master_seed)),
        ],
    )


def _machine(environment: Mapping[str, Any]) -> Iterator[str]:
    facts = list(_flat(environment, ""))
    shown = facts[:_FINGERPRINT_SHOWN]
    if len(facts) > len(shown):
        shown.append(("...", f"{len(facts) - len(shown)} more in environment.json"))
    yield from table(("Machine", ""), shown)
    yield ""
    yield "Every number below can be computed again from the turn files alone. Turn 1 is in the files named `_turn0`."
    yield "Brackets hold 95% intervals: of a speedup over the rounds of its timing, of all else over problems (bootstrap)."


def cautions(results: Results, episodes: Sequence[Episode]) -> Iterator[str]:
    """Why not to believe the numbers of a run, a sentence or two each."""
    meta = results.metadata
    if "imported" in meta.verification:
        yield "verdicts, times and rewards are another trainer's word. Nothing was verified or measured here."
    if "inprocess" in meta.verification:
        yield "some verdicts were reached in the candidate's own process. It could have forged them."
    if "recorded" in meta.clocks:
        yield "some times come from a recording, not from a clock. Speedups and rewards are no measurement."
    noisy = sum(t.verdict.timing is not None and t.verdict.timing.noise > QUIET for e in episodes for t in e.turns)
    if noisy:
        yield f"{noisy} times were taken while other work kept the cores busy. Do not believe their speedups."
    if results.summary.cancelled:
        yield (
            f"{results.summary.cancelled} episodes were cancelled once enough others were complete. What was kept "
            "prefers quick ones: its rates are not those of the policy."
        )
    degenerate = sorted({e.problem.key for e in episodes for t in e.turns if t.verdict.degenerate})
    if degenerate:
        yield f"the outputs of {', '.join(degenerate)} hardly vary with the inputs: a constant may count as correct."
    if mixed := mixture(episodes):
        yield f"{mixed}."


def _success(results: Results) -> Iterator[str]:
    summary, threshold = results.summary, results.metadata.correct_reward
    everyone = list(results.problems.values())
    completed = [r for r in everyone if r.completed]
    measures: dict[str, Callable[[EpisodeResult], bool]] = {
        "Compiled in some turn": lambda r: r.final_compiled,
        "Correct in some turn": lambda r: r.final_correct,
        "Multi-turn success": lambda r: r.multi_turn_success(threshold),
        "Wrong at first, correct later": lambda r: r.corrected_later,
        "Solved, stopped early": lambda r: r.stop_reason is StopReason.SOLVED,
    }
    yield "## Overall success"
    yield ""
    yield from table(
        ("Episodes", "of all asked for", "of those completed"),
        (
            (name, rate(sum(map(holds, everyone)), summary.total), rate(sum(map(holds, completed)), len(completed)))
            for name, holds in measures.items()
        ),
    )
    yield ""
    yield f"Multi-turn success: correct in some turn, and an aggregated return above {threshold:g}."
    yield (
        f"Of {summary.total} episodes, {summary.completed} completed, {summary.unscored} could not be scored, "
        f"{summary.cancelled} were cancelled, {summary.infra_errors} failed by infrastructure, {summary.policy_failures} by the "
        f"policy, {summary.not_run} did not run."
    )
    yield f"Average turns: {summary.avg_turns:.2f}. Episodes with thinking: {summary.thinking_detected}."


def _speed(metrics: Metrics) -> Iterator[str]:
    asked, completed = f"of all {metrics.problems} problems asked for", metrics.fast_p[0].completed.of
    yield "### fast_p and pass@k"
    yield ""
    yield "The share of a problem's samples with a correct kernel that is more than p times as fast, averaged over problems."
    yield f"{metrics.completed} of {metrics.samples} samples completed, and {completed} problems have such a one."
    yield ""
    yield from table(("p", asked, "of those completed"), ((f"{f.p:g}", share(f.asked), share(f.completed)) for f in metrics.fast_p))
    yield ""
    yield "The chance that one of k samples of a problem is correct, and that one is correct and faster than the baseline."
    yield ""
    rows = ((str(found.k), share(found.correct), share(found.fast_1)) for found in metrics.pass_at_k)
    yield from table(("k", f"pass@k {asked}", f"fast_1@k {asked}"), rows)
    yield ""
    yield (
        f"Geometric mean of speedups: {number(metrics.speedup, '.2f', 'x')}, of the fastest kernel of each of the "
        f"{metrics.speedup.of} samples (of {metrics.samples}) with a timed correct one. {metrics.untimed} samples are correct "
        "without any time: they are in no fast_p."
    )
    yield ""
    light = metrics.speed_of_light
    yield (
        f"Speed-of-light share: {share(light)} of the same kernels, as far as the work of their references could be counted "
        f"({light.of} of {metrics.speedup.of}): what that work would take at the machine's measured peaks, over what the kernel "
        "took. Better algebra than the reference's brings it above 100%."
    )


def _spending(metrics: Metrics) -> Iterator[str]:
    spent = metrics.spending
    tokens = spent.prompt_tokens + spent.completion_tokens
    counted = f"{tokens:,} (prompts {spent.prompt_tokens:,}, replies {spent.completion_tokens:,})"
    cost = (NONE, NONE) if spent.cost_per_solved is None else (f"{spent.cost:.4g}", number(spent.cost_per_solved, ".4g"))
    yield "### What it took"
    yield ""
    yield from table(
        ("All turns", "in all", f"per solved problem ({spent.tokens_per_solved.of} of {metrics.problems} asked for)"),
        [
            ("Tokens", *((counted, number(spent.tokens_per_solved, ",.0f")) if tokens else (NONE, NONE))),
            ("Seconds of replies", f"{spent.policy_s:.1f}", number(spent.policy_s_per_solved, ".1f")),
            ("Seconds of verification", f"{spent.verify_s:.1f}", number(spent.verify_s_per_solved, ".1f")),
            ("Cost", *cost),
        ],
    )
    yield ""
    yield "Seconds add up as if one thing had happened at a time. A problem is solved when a sample of it has a correct kernel."


def _turn_analysis(episodes: Sequence[Episode], groups: Groups) -> Iterator[str]:
    turns = longest(episodes)
    positions = [
        (f"Turn {a.turn}", NONE if a.reward is None else f"{a.reward:.3f}", str(a.scored), str(a.unscored))
        for a in (at_turn(episodes, turn) for turn in range(1, turns + 1))
    ]
    rows = [
        (
            f"Turn {s.turn - 1} → {s.turn}",
            *(rate(count, s.change.of) for count in (s.improved, s.unchanged, s.worse)),
            number(s.change, "+.3f"),
        )
        for s in (step(groups, turn) for turn in range(2, turns + 1))
    ]
    yield "## Turn analysis"
    yield ""
    yield "A solved episode has no later turns, so later averages are over the harder problems."
    yield ""
    yield from table(("Position", "average reward", "n", "unscored"), positions)
    yield ""
    yield from table(("Step, both scored", "improved", "unchanged", "worse", "average change"), rows)


def _best_so_far(metrics: Metrics) -> Iterator[str]:
    yield "### Best so far"
    yield ""
    yield "The best of each sample up to a turn: one that ended before keeps what it had."
    yield ""
    asked = f"of all {metrics.problems} problems asked for"
    rows = (
        (f"Turn {b.turn}", number(b.reward), f"{b.reward.of} of {metrics.samples}", share(b.correct), share(b.fast_1))
        for b in metrics.by_turn
    )
    yield from table(("By", "average best reward", "samples scored", f"correct {asked}", f"fast_1 {asked}"), rows)


def _thinking(episodes: Sequence[Episode]) -> Iterator[str]:
    """Turns with long thinking beside those without, where the run decided that; nothing else."""
    turns = [turn for e in episodes for turn in e.turns if turn.thinking is not None]
    if not turns:
        return
    asked = [t.thinking for t in turns if t.thinking is not None and t.thinking.understood is not None]
    rows = []
    for name, on in (("on", True), ("off", False)):
        chosen = [t for t in turns if t.thinking is not None and t.thinking.on is on]
        rewards = [t.reward.value for t in chosen if t.reward.value is not None]
        tokens = [float(t.generation.usage.completion_tokens) for t in chosen]
        seconds = [t.generation.duration_s for t in chosen]
        rows.append((name, str(len(chosen)), *map(_mean, (rewards, tokens, seconds))))
    yield "## Thinking"
    yield ""
    yield from table(("Long thinking", "turns", "average reward", "tokens a reply", "seconds a reply"), rows)
    if asked:
        tokens_of_asking = sum(t.usage.prompt_tokens + t.usage.completion_tokens for t in asked)
        unclear = sum(not t.understood for t in asked)
        yield ""
        seconds_of_asking = sum(t.duration_s for t in asked)
        yield (
            f"The policy was asked before {len(asked)} turns ({tokens_of_asking} tokens, {seconds_of_asking:.1f} s in all); "
            f"{unclear} answers were neither yes nor no."
        )
        yield "It chose which turns think: harder ones may be among either, so the rows do not compare like with like."


def _reward_sources(episodes: Sequence[Episode]) -> Iterator[str]:
    """What judges and predictions said beside what was measured; nothing where nobody was asked."""
    opinions = [(name, opinion) for e in episodes for t in e.turns for name, opinion in t.reward.opinions.items()]
    if not opinions:
        return
    spreads = distribution(_scores(episodes))
    yield "## Reward sources"
    yield ""
    yield from table(
        ("Source", "scores", "mean", "deviation", "correlation with what was measured", "from the cache", "latency of the others"),
        (
            (name, str(s.count), f"{s.mean:.3f}", f"{s.std:.3f}", s.correlation_text, s.cache_text, s.latency_text)
            for name, s in spreads.items()
        ),
    )
    yield ""
    if spreads:
        yield f"![How scores spread, and how they go with what was measured]({_PICTURE})"
        yield ""
    doubts = ", ".join(f"{doubt} ({count})" for doubt, count in _ranked(doubt for _, o in opinions for doubt in o.doubts))
    yield f"Of {len(opinions)} opinions, {sum(o.score is not None for _, o in opinions)} have a score of the source or of rules."
    yield f"Doubts about them: {doubts}." if doubts else ""
    without = _ranked(f"{name}: {opinion.reason}" for name, opinion in opinions if opinion.score is None or opinion.by_rules)
    if without:
        yield "Not the source's own, and why:"
        yield ""
        yield from table(("Turns", "why"), ((str(count), reason) for reason, count in without[:_REASONS_SHOWN]))
        if len(without) > _REASONS_SHOWN:
            yield ""
            yield f"{len(without) - _REASONS_SHOWN} more reasons are in the turn files, under `reward.opinions`."


def _scores(episodes: Sequence[Episode]) -> list[Score]:
    """Those of sources, and apart from them those of rules in a source's stead."""
    return [
        Score(
            f"{name}_{RULES}" if opinion.by_rules else name,
            opinion.score,
            measured_part(turn.reward),
            opinion.cached,
            opinion.latency_ms,
        )
        for episode in episodes
        for turn in episode.turns
        for name, opinion in turn.reward.opinions.items()
        if opinion.score is not None
    ]


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else NONE


def _best_performers(results: Results) -> Iterator[str]:
    returns = [(r.aggregated_return, key, r) for key, r in results.problems.items() if r.aggregated_return is not None]
    returns.sort(key=lambda item: -item[0])  # stable: equal returns stay in the run's order
    rows = [
        (key, r.problem_name, f"{value:.3f}", str(r.num_turns), NONE if r.best_turn is None else str(r.best_turn + 1))
        for value, key, r in returns[:_BEST_SHOWN]
    ]
    yield "## Best performers"
    yield ""
    yield from table(("Problem", "name", "aggregated return", "turns", "best turn"), rows)


def _error_analysis(summary: Summary, episodes: Sequence[Episode]) -> Iterator[str]:
    failed = [t.verdict for e in episodes for t in e.turns if t.verdict.scored and not t.verdict.correct]
    faults = [v for v in failed if is_memory_fault(v)]
    others = [v for v in failed if not is_memory_fault(v) and v.status is not Status.TIMEOUT]
    rows = [
        ("Memory faults", rate(summary.memory_faults, summary.turns), _kinds(faults)),
        ("Timeouts", rate(summary.timeouts, summary.turns), ""),
        ("Other errors", rate(summary.other_errors, summary.turns), ""),
    ]
    for status, count in _ranked(v.status for v in others):
        rows.append((f"- {status}", rate(count, summary.turns), _kinds([v for v in others if v.status == status])))
    yield "## Error analysis"
    yield ""
    yield f"Of {summary.turns} turns, {summary.turns_correct} were correct and {summary.turns_unscored} could not be judged here."
    yield ""
    yield from table(("Turns", "of all turns", "kinds"), rows)


def _set_apart(info: RunInfo, episodes: Sequence[Episode]) -> Iterator[str]:
    """Episodes without a return, and why."""
    rows = []
    for e in episodes:
        reasons = "; ".join(f"turn {t.index + 1}: {t.reward.reason}" for t in e.turns if t.reward.value is None)
        if e.error:
            rows.append((e.key, e.stop_reason.value, e.error))
        elif e.stop_reason is StopReason.CANCELLED:
            rows.append((e.key, "cancelled", "enough others were complete without it"))
        elif reasons:
            rows.append((e.key, "unscored", reasons))
        elif not e.turns:
            rows.append((e.key, "not run", "the recording has no reply for it"))
    ended = {e.key for e in episodes}
    rows.extend((key, "not run", "not finished; the same command resumes") for key in info.asked if key not in ended)
    yield "## Failed and unscored"
    yield ""
    if not rows:
        yield "None: every episode that was asked for ran, and every turn was scored."
        return
    yield "They count among all asked for and have no return; none is a zero. Their scored turns stay in the turn analysis."
    yield ""
    yield from table(("Problem", "outcome", "why"), sorted(rows, key=lambda row: episode_order(row[0])))


def _all_problems(results: Results, episodes: Sequence[Episode]) -> Iterator[str]:
    rows = []
    for e in episodes:
        value = results.problems[e.key].aggregated_return
        total = NONE if value is None else f"{value:.3f}"
        rows.append((e.key, e.problem.name, str(len(e.turns)), _rewards(e), total, speedup(fastest(e)), _status(e)))
    yield "## All problems"
    yield ""
    yield from table(("Problem", "name", "turns", "reward per turn", "return", "best speedup [95%]", "status"), rows)


# ------------------------------------------------------------------ cells


def _ranked(values: Iterable[str]) -> list[tuple[str, int]]:
    """Distinct values with their counts: the most frequent first, then by name."""
    return sorted(((str(value), count) for value, count in Counter(values).items()), key=lambda item: (-item[1], item[0]))


def _kinds(verdicts: Iterable[Verdict]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in _ranked(v.category for v in verdicts if v.category))


def _rewards(episode: Episode) -> str:
    return " → ".join("unscored" if reward is None else f"{reward:.2f}" for reward in episode.rewards_T) or NONE


def _status(episode: Episode) -> str:
    """The last turn's status and why the episode ended; an earlier correct turn is not forgotten."""
    if not episode.turns:
        return episode.stop_reason.value
    last = episode.turns[-1].verdict
    earlier = next((turn.index + 1 for turn in episode.turns if turn.verdict.correct), None)
    note = f", correct in turn {earlier}" if earlier is not None and not last.correct else ""
    return f"{last.status} ({episode.stop_reason}{note})"


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values) or NONE


def _flat(tree: object, prefix: str) -> Iterator[tuple[str, str]]:
    """The leaves of a nested mapping by dotted key."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(tree)
