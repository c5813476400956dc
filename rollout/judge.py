"""`kernel-env judge serve` and `kernel-env judge calibrate`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kernel_env.errors import ConfigError
from kernel_env.parsing import extract_kernel
from kernel_env.problems.selection import did_you_mean
from rewards.judge.bounds import PORT
from rewards.judge.calibration import Calibration, Labelled, calibrate
from rewards.judge.canaries import WORDS, injected
from rewards.judge.models import Judge, custom_judge
from rewards.judge.wire import AnswerType, JudgeRequest
from rollout.options import typed

API_KEY = "JUDGE_MODEL_API_KEY"
KINDS = ("static", "llm", "transformers", "panel", "chain")
_INJECTED_EVERY = 6
"""One kernel in so many of the corpus is judged again with words in it that speak to the judge."""


@dataclass(frozen=True)
class JudgeOptions:
    """What `kernel-env judge` takes as NAME=VALUE."""

    judge: str = "static"
    """`static` (no model), `llm`, `transformers`, `panel`, `chain`, or `package.module.Class` of a judge of your own."""
    members: str = "static,llm"
    """Of a panel or a chain."""
    how: str = "mean"
    """How a panel's scores become one: `mean`, `median` or `vote`."""
    host: str = "127.0.0.1"
    port: int = PORT
    """0: any free one."""
    api_key: str = ""
    """Who asks has to send it. Default: the environment's JUDGE_MODEL_API_KEY, or nobody has to."""
    max_batch_size: int = 16
    """Most requests that the judge is given at once."""
    batch_timeout: float = 0.05
    """Seconds that the first request of a batch waits for others."""
    batches_in_flight: int = 4
    """Batches that the judge works on at a time."""
    queue: int = 1000
    """Requests that may wait."""
    timeout: float = 120.0
    """Seconds after which a batch has failed."""
    model: str = ""
    """`llm`: the model's name at the endpoint; `transformers`: a reward model's directory, or its name on the hub."""
    base_url: str = ""
    """`llm`: the API's root. Default: OPENAI_BASE_URL, or OpenAI's own; the key is OPENAI_API_KEY."""
    mode: str = "auto"
    """`llm`: how a verdict is asked for: `schema`, `json`, `plain`, or the strictest that the endpoint is seen to honour."""
    compare_raw: bool = True
    """`llm` and `transformers`: judge kernels with their comments too, and say where that makes a difference."""
    own_policy: bool = False
    """`llm`: the model judges its own work, and every score says so."""
    max_tokens: int = 2048
    """`llm`: for reasoning and verdict."""
    threshold: float = 0.5
    """`calibrate`: below this score a kernel is called bad."""


def judge(words: Sequence[str], overrides: Sequence[str], *, as_json: bool) -> int:
    """Dispatch the two subcommands."""
    options = judge_options(overrides)
    match words:
        case ["serve"]:
            return _serve(options)
        case ["calibrate", *rest] if len(rest) <= 1:
            return _calibrate(options, Path(rest[0] if rest else "tests/candidates"), as_json=as_json)
    raise ConfigError("usage: kernel-env judge serve [OPTION=VALUE ...], or kernel-env judge calibrate [DIRECTORY] [--json]")


def judge_options(overrides: Sequence[str]) -> JudgeOptions:
    """Raises ConfigError for an unknown option or a value of the wrong kind."""
    return typed(JudgeOptions, overrides)


def make_judge(options: JudgeOptions, kind: str = "") -> Judge:
    """The judge that the options name, not started. Raises ConfigError."""
    kind = kind or options.judge
    if kind == "static":
        from rewards.judge.static import StaticJudge

        return StaticJudge()
    if kind == "llm":
        from rewards.judge.llm import LLMConfig, LLMJudge

        shared = {field.name for field in dataclasses.fields(LLMConfig)} & {
            field.name for field in dataclasses.fields(JudgeOptions)
        }
        return LLMJudge(LLMConfig(**{name: getattr(options, name) for name in shared - {"api_key"}}))
    if kind == "transformers":
        from rewards.judge.transformers import TransformersJudge

        return TransformersJudge(options.model, compare_raw=options.compare_raw)
    if kind in ("panel", "chain") and kind == options.judge:
        from rewards.judge.panel import ChainJudge, PanelJudge

        members = [make_judge(options, name.strip()) for name in options.members.split(",")]
        return ChainJudge(members) if kind == "chain" else PanelJudge(members, options.how)  # type: ignore[arg-type]  # it checks
    if "." not in kind and ":" not in kind:
        raise ConfigError(
            f"judge={kind}: choose {', '.join(KINDS)}, or name a class, package.module.Class{did_you_mean(kind, KINDS)}"
        )
    sys.path.insert(0, os.getcwd())  # a judge of one's own often lies where one works, as for `python -m`
    return custom_judge(kind)


def _serve(options: JudgeOptions) -> int:
    try:
        from rewards.judge.server import ServerConfig, serve
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'kernel-env[judge]'") from error
    from rewards.judge.batcher import BatchConfig

    batches = BatchConfig(
        max_batch_size=options.max_batch_size,
        batch_timeout_s=options.batch_timeout,
        batches_in_flight=options.batches_in_flight,
        queue=options.queue,
        timeout_s=options.timeout,
    )
    key = options.api_key or os.environ.get(API_KEY, "")
    made = make_judge(options)

    def listening(address: str) -> None:
        print(f"judge {options.judge} listens on {address}{'' if key else ', for anybody: no api_key is set'}", flush=True)

    asyncio.run(serve(made, ServerConfig(options.host, options.port, key, batches), listening))
    return 0


# ------------------------------------------------------------------ calibration


def _calibrate(options: JudgeOptions, directory: Path, *, as_json: bool) -> int:
    found = asyncio.run(_calibrated(make_judge(options), labelled(directory), options.threshold))
    if as_json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        show(found)
    return 0


async def _calibrated(made: Judge, kernels: Sequence[Labelled], threshold: float) -> Calibration:
    await made.start()
    try:
        return await calibrate(made, kernels, threshold)
    finally:
        await made.aclose()


def labelled(directory: Path) -> list[Labelled]:
    """The corpus, recorded replies, and of some of both: with injected words, and broken."""
    kernels = [*_corpus(directory), *_recorded(directory)]
    return [*kernels, *_with_words(kernels[::_INJECTED_EVERY]), *_broken([k for k in kernels if k.good][::_INJECTED_EVERY])]


def _corpus(directory: Path) -> Iterator[Labelled]:
    from rollout.corpus import load_corpus

    corpus = load_corpus(directory)
    for entry in corpus.entries:
        group = corpus.classes[entry.classes[0]].group if entry.kind == "cheat" else "honest"
        yield _labelled(
            entry.name, group, entry.kind == "honest", entry.candidate.code, entry.candidate.backend, entry.problem.source
        )


def _recorded(directory: Path) -> Iterator[Labelled]:
    """Replies that are known to be correct: `recorded_statuses.json` in the directory `data` beside the corpus says which. Whether
    the others are right is the referee's business, and nothing that a judge could see."""
    statuses = directory.parent / "data" / "recorded_statuses.json"
    known: dict[str, dict[str, str]] = json.loads(statuses.read_text()) if statuses.is_file() else {}
    for folder, turns in known.items():
        for turn, status in turns.items():
            text = (files("rollout") / "recordings" / folder / f"{turn}.txt").read_text() if status == "correct" else ""
            if (code := extract_kernel(text).code) is not None:
                yield _labelled(f"{folder}/{turn}", "recorded", True, code, folder.split("/")[1])


def _with_words(kernels: Sequence[Labelled]) -> Iterator[Labelled]:
    attacks = list(WORDS)
    for number, kernel in enumerate(kernels):
        attack = attacks[number % len(attacks)]
        request = kernel.request.model_copy(update={"completion": injected(kernel.request.completion, attack)})
        group = "injected, honest" if kernel.good else "injected, bad"
        yield Labelled(f"{kernel.name}+{attack}", group, kernel.good, request, twin=kernel.name)


def _broken(kernels: Sequence[Labelled]) -> Iterator[Labelled]:
    """The second half of each is missing."""
    for kernel in kernels:
        code = kernel.request.completion
        request = kernel.request.model_copy(update={"completion": f"{code[: len(code) // 2]}\n\n\nclass ModelNew:"})
        yield Labelled(f"{kernel.name}, cut", "broken", False, request)


def _labelled(name: str, group: str, good: bool, code: str, backend: str, reference: str | None = None) -> Labelled:
    kind = AnswerType(f"KERNEL_{backend.upper()}")
    return Labelled(name, group, good, JudgeRequest(prompt=name, completion=code, answer=reference, answer_type=kind))


def show(found: Calibration) -> None:
    """For a person."""
    console = Console(highlight=False, soft_wrap=True)
    table = Table("kernels", "number", "called what they are", "flagged", "mean score", "unscored")
    for group in found.groups:
        mean = "-" if group.mean_score is None else f"{group.mean_score:.2f}"
        table.add_row(group.name, str(group.kernels), str(group.right), str(group.flagged), mean, str(group.unscored))
    console.print(table)
    console.print(f"{found.judge} (version {found.version}): {found.kernels} kernels, {found.unscored} unscored")
    console.print(f"below {found.threshold:g}:  precision {_percent(found.precision)}, recall {_percent(found.recall)}")
    console.print(f"flagged:    precision {_percent(found.flag_precision)}, recall {_percent(found.flag_recall)}")
    console.print(f"Brier score {'-' if found.brier is None else f'{found.brier:.3f}'} (0 is perfect; always one half: 0.250)")
    console.print(f"words to the judge raised the score of {found.moved} of {found.injected} kernels")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
