"""`kernel-env`: one command, subcommands that speak Hydra overrides where they take configuration."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_env.errors import ConfigError, KernelEnvError
from kernel_env.printable import printable

if TYPE_CHECKING:
    from rollout.settings import Settings

HELP = """kernel-env: multi-turn kernel generation, verified and timed on this machine

  kernel-env eval [--multirun] [OPTION=VALUE ...]     play episodes; the same command resumes
  kernel-env verify PROBLEM FILE [--json] [--aot TARGET] [OPTION=VALUE ...]
                                                      judge one candidate (a .py file, or a whole reply)
  kernel-env replay RUN [PROBLEM [TURN]]              verify a run's turns again and say what differs
  kernel-env report RUN                               write the report of a run again
  kernel-env compare RUN RUN ... [--json FILE] [--html FILE] [--fail-if-worse] [--mixed]
                                                      hold runs against the first, problem by problem
  kernel-env import FILE --name RUN                   another trainer's trajectories (TritonForge's JSON) as a run
  kernel-env export RUN DIRECTORY [turn=best|first|last]
                                                      a run's kernels and results as KernelBench's own scripts read them
  kernel-env scorecard [DIRECTORY [PART]] [--json] [--write] [OPTION=VALUE ...]
                                                      judge a corpus of cheats and honest kernels (tests/candidates)
  kernel-env serve [OPTION=VALUE ...]                 verify for others over HTTP (host=, port=, api_key=, verifier.slots=, ...)
  kernel-env judge serve [OPTION=VALUE ...]           serve a judge over HTTP (judge=static|llm|transformers|panel|chain)
  kernel-env judge calibrate [DIRECTORY] [--json] [OPTION=VALUE ...]
                                                      score kernels of known worth: precision, recall, Brier score
  kernel-env monitor [DIRECTORY] [--once] [stuck_s=1800] [every_s=5]
                                                      how runs and sweeps stand, what needs a look first
  kernel-env arena validate|dry-run|submit|run|monitor|show [RUN ...|--all] [--once] [OPTION=VALUE ...]
                                                      judge runs against arena.baseline=RUN, two games a problem
  kernel-env doctor [--json] [OPTION=VALUE ...]       what works on this machine, and what does not

`kernel-env eval --help` lists every option. Exit codes: 0 done; 1 the answer is no (verify, replay, scorecard, monitor, arena,
doctor); 2 wrong input; 3 nothing was scored, or answers are missing; 4 infrastructure failed; 5 the model gave no reply;
6 unreachable; 7 wrong key; 8 no such model; 9 every reply was empty; 10 every reply was still thinking; 11 not one kernel was
correct; 130 interrupted; 138 and 143 stopped by SIGUSR1 and SIGTERM. Of several runs it is the highest.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except KernelEnvError as error:
        print(f"kernel-env {argv[0]}: {printable(_one_line(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("kernel-env: interrupted; finished turns are kept, and the same command resumes", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] == "help" or (argv[0] != "eval" and not {"-h", "--help"}.isdisjoint(argv)):
        print(HELP, end="")
        return 0 if argv else 2
    commands: dict[str, Callable[[list[str]], int]] = {
        "eval": _eval, "verify": _verify, "replay": _replay, "report": _report, "compare": _compare, "import": _import,
        "export": _export, "scorecard": _scorecard, "serve": _serve, "judge": _judge, "monitor": _monitor, "arena": _arena,
        "doctor": _doctor,
    }  # fmt: skip
    command = commands.get(argv[0])
    if command is None:
        from kernel_env.problems.selection import did_you_mean

        raise ConfigError(f"unknown command {argv[0]!r}; `kernel-env --help` lists all{did_you_mean(argv[0], commands)}")
    return command(argv[1:])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _split(argv: list[str], flags: Sequence[str]) -> tuple[list[str], list[str], set[str]]:
    """Positional words, overrides and flags. Raises ConfigError for a flag that does not exist."""
    given = {a for a in argv if a.startswith("--")}
    unknown = given - set(flags)
    if unknown:
        known = f"{' '.join(flags)} and options" if flags else "options"
        raise ConfigError(f"unknown flag {' '.join(sorted(unknown))}: there are {known} as NAME=VALUE")
    words = [a for a in argv if not a.startswith("--")]
    overrides = [w for w in words if "=" in w[1:] and not _is_cell(w)]
    return [w for w in words if w not in overrides], overrides, given


def _is_cell(word: str) -> bool:
    """Whether it is the name of a run of a multirun: `model=a,temperature=0-1f3a9c07b2`."""
    from rollout.store import is_run, run_places

    return any(map(is_run, run_places(word)))


def _eval(argv: list[str]) -> int:
    from rollout import compose

    if "--help" in argv or "-h" in argv:
        from rollout.reference import options_text

        print(options_text(), end="")
        return 0
    stray, overrides, flags = _split([{"-m": "--multirun"}.get(a, a) for a in argv], ("--multirun",))
    if stray:
        raise ConfigError(f"{stray[0]!r} is not an option: write NAME=VALUE, e.g. problems=bundled rollout.max_turns=3")
    if flags:
        from rollout.sweep import sweep

        return sweep(overrides)
    return _single(*compose.composed(overrides))


def _single(settings: Settings, text: str) -> int:
    """Without `--multirun`."""
    from rollout import preview

    if settings.models is not None or settings.sweep.launcher != "local":
        raise ConfigError("models=... and sweep.launcher=... are of several runs: add --multirun")
    if settings.dry_run:
        return asyncio.run(preview.dry_run([settings]))
    if settings.validate:
        return asyncio.run(preview.validate([settings]))
    return _play(settings, text)


def _play(settings: Settings, text: str) -> int:
    from stamina.instrumentation import set_on_retry_hooks

    from rollout.display import Display
    from rollout.runner import run
    from rollout.slurm import queue_again
    from rollout.stopping import Stopped, run_stoppable

    with Display(settings.display) as display:
        set_on_retry_hooks([display.retry])  # instead of the default, which logs a bare word
        view = display.view()
        try:
            result = run_stoppable(run(settings, text, on_plan=view.plan, on_event=view.event, on_stages=view.stages))
        except Stopped as stopped:
            if stopped.by is signal.SIGUSR1:
                queue_again(settings.slurm)
            raise
        view.close(result)
    result.check()
    return 0


def _verify(argv: list[str]) -> int:
    from rollout.commands import verify

    argv, targets = _targets(argv)
    words, overrides, flags = _split(argv, ("--json", "--aot"))
    if len(words) != 2:
        raise ConfigError("usage: kernel-env verify PROBLEM FILE [--json] [--aot TARGET] [OPTION=VALUE ...]")
    overrides += [f"verify.aot=[{','.join(targets)}]"] if targets else []
    return verify(words[0], Path(words[1]), overrides, as_json="--json" in flags)


def _targets(argv: list[str]) -> tuple[list[str], list[str]]:
    """Without `--aot TARGET`, which may come more than once; and those."""
    left, targets, words = [], [], iter(argv)
    for word in words:
        if word == "--aot":
            targets.append(next(words, ""))
        elif word.startswith("--aot="):
            targets.append(word.removeprefix("--aot="))
        else:
            left.append(word)
    if "" in targets:
        raise ConfigError("--aot is followed by a target, such as cuda:90")
    return left, [name for text in targets for name in text.split(",")]


def _valued(argv: list[str], names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Without flags that have a value (`--name VALUE`, `--name=VALUE`); and those."""
    left, found, words = [], {}, iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in names:
            left.append(word)
            continue
        found[name] = value if equals else next(words, "")
        if not found[name]:
            raise ConfigError(f"{name} is followed by its value")
    return left, found


def _replay(argv: list[str]) -> int:
    from rollout.replay import replay

    words, overrides, _ = _split(argv, ())
    if not 1 <= len(words) <= 3:
        raise ConfigError("usage: kernel-env replay RUN [PROBLEM [TURN]] [OPTION=VALUE ...]")
    turn = None
    if len(words) == 3:
        if not words[2].isdigit():
            raise ConfigError(f"TURN is a number from 0, got {words[2]!r}")
        turn = int(words[2])
    return replay(words[0], words[1] if len(words) > 1 else None, turn, overrides)


def _report(argv: list[str]) -> int:
    from rollout.commands import report

    words, overrides, _ = _split(argv, ())
    if len(words) != 1 or overrides:
        raise ConfigError("usage: kernel-env report RUN")
    return report(words[0])


def _compare(argv: list[str]) -> int:
    from rollout.commands import compare

    argv, files = _valued(argv, ("--json", "--html"))
    words, overrides, flags = _split(argv, ("--fail-if-worse", "--mixed"))
    if len(words) < 2 or overrides:
        raise ConfigError("usage: kernel-env compare RUN RUN ... [--json FILE] [--html FILE] [--fail-if-worse] [--mixed]")
    json_file, html_file = (Path(files[name]) if name in files else None for name in ("--json", "--html"))
    return compare(
        words, mixed="--mixed" in flags, json_file=json_file, html_file=html_file, fail_if_worse="--fail-if-worse" in flags
    )


def _import(argv: list[str]) -> int:
    from rollout.commands import import_dump

    argv, given = _valued(argv, ("--name",))
    words, overrides, _ = _split(argv, ())
    if len(words) != 1 or "--name" not in given or overrides:
        raise ConfigError("usage: kernel-env import FILE --name RUN")
    return import_dump(Path(words[0]), given["--name"])


def _export(argv: list[str]) -> int:
    from rollout.commands import export

    words, overrides, _ = _split(argv, ())
    given = dict(word.split("=", 1) for word in overrides)
    if len(words) != 2 or given.keys() - {"turn"}:
        raise ConfigError("usage: kernel-env export RUN DIRECTORY [turn=best|first|last]")
    return export(words[0], Path(words[1]), given.get("turn", "best"))


def _scorecard(argv: list[str]) -> int:
    from rollout.scorecard import scorecard

    words, overrides, flags = _split(argv, ("--json", "--write"))
    if len(words) > 2:
        raise ConfigError("usage: kernel-env scorecard [DIRECTORY [PART]] [--json] [--write] [OPTION=VALUE ...]")
    directory, part = (*words, *("tests/candidates", "")[len(words) :])
    return scorecard(Path(directory), overrides, as_json="--json" in flags, write="--write" in flags, only=part)


def _serve(argv: list[str]) -> int:
    from rollout.serve import serve

    words, overrides, _ = _split(argv, ())
    if words:
        raise ConfigError("usage: kernel-env serve [OPTION=VALUE ...]")
    return serve(overrides)


def _judge(argv: list[str]) -> int:
    from rollout.judge import judge

    words, overrides, flags = _split(argv, ("--json",))
    return judge(words, overrides, as_json="--json" in flags)


def _monitor(argv: list[str]) -> int:
    from rollout.monitor import EVERY_S, STUCK_S, monitor

    words, overrides, flags = _split(argv, ("--once",))
    given = dict(word.split("=", 1) for word in overrides)
    usage = "usage: kernel-env monitor [DIRECTORY] [--once] [stuck_s=SECONDS] [every_s=SECONDS]"
    if len(words) > 1 or given.keys() - {"stuck_s", "every_s"}:
        raise ConfigError(usage)
    try:
        stuck_s, every_s = float(given.get("stuck_s", STUCK_S)), float(given.get("every_s", EVERY_S))
    except ValueError:
        raise ConfigError(usage) from None
    return monitor((words or ["runs"])[0], once="--once" in flags, stuck_s=stuck_s, every_s=every_s)


def _arena(argv: list[str]) -> int:
    from rollout.arena.command import FLAGS, arena

    return arena(*_split(argv, FLAGS))


def _doctor(argv: list[str]) -> int:
    from stamina.instrumentation import set_on_retry_hooks

    from rollout.doctor import doctor

    set_on_retry_hooks([])  # its findings say all there is to say
    words, overrides, flags = _split(argv, ("--json",))
    if words:
        raise ConfigError("usage: kernel-env doctor [--json] [OPTION=VALUE ...]")
    return doctor(overrides, as_json="--json" in flags)


if __name__ == "__main__":
    sys.exit(main())
