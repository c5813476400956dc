"""Another trainer's dumps as runs: what they say is kept, marked as its word, and can be held against ours.

The dumps are written here in the three forms that TritonForge has, from episodes played under `reward=tritonforge`, whose messages
and rewards are those of its training code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError, DatasetError
from kernel_env.schema import Episode, Status, StopReason, Turn, from_json
from rollout.cli import main
from rollout.compare import Comparison
from rollout.conduct import Fit, conduct
from rollout.metrics import measure
from rollout.returns import trajectory_return
from rollout.store import RunReader
from rollout.tritonforge import Dump, read_dump
from tests.synthetic import Recipe, episodes, info, write

PLAYED = Recipe(preset="tritonforge", problems=8, samples=2, skill=0.4)


# ------------------------------------------------------------------ dumps


def said(turn: Turn) -> str:
    """What its evaluation says of a turn."""
    verdict, timing = turn.verdict, turn.verdict.timing
    if turn.code is None:
        return "no custom model source found"
    if not verdict.compiled:
        return "Current implementation con't pass compile check"
    if not verdict.correct:
        return "Current implementation passes compile check but fails correctness check"
    if timing is None:
        return "Current implementation passes correctness check"
    runtime, baseline = timing.runtime.median_ms, timing.baseline.median_ms
    times = f"Speedup: {timing.speedup:.2f}x, Runtime: {runtime:.3f}ms vs Baseline: {baseline:.3f}ms"
    return f"Current implementation passes correctness check ({times})"


def history_entry(turn: Turn) -> dict[str, Any]:
    verdict = turn.verdict
    result = {
        "compiled": verdict.compiled,
        "correctness": verdict.correct,
        "runtime": verdict.runtime_ms or -1.0,
        "speedup": verdict.speedup or 0,
        "error_message": said(turn),
    }
    text = turn.generation.text
    entry = {"turn_idx": turn.index, "kernel_code": turn.code or "", "eval_result": result, "reward": turn.reward.value}
    return {**entry, "original_content": text}


def conversation(episode: Episode) -> list[dict[str, str]]:
    last = episode.turns[-1]
    return [*map(dict, last.messages), {"role": "assistant", "content": last.generation.text}]


def logged(episode: Episode) -> dict[str, Any]:
    """A trajectory of its detailed log."""
    problem = episode.problem
    told = {"level": problem.level, "problem_id": str(problem.problem_id), "problem_name": problem.name}
    return {
        "timestamp": "20250807_084801_412128",
        "instance_id": f"kernel_bench_triton_lv{problem.level}_{problem.problem_id}",
        "num_turns": len(episode.turns),
        "turn_rewards": list(episode.rewards_T),
        "aggregated_return": trajectory_return(episode.rewards_T, 0.4),
        "history": [history_entry(turn) for turn in episode.turns],
        "messages": conversation(episode),
        "execution_details": {},
        "extra_info": told,
    }


def buffered(episode: Episode) -> dict[str, Any]:
    """An entry of what its buffer hands over."""
    log = logged(episode)
    played = {name: log[name] for name in ("history", "turn_rewards", "aggregated_return")}
    return {
        "uid": "u",
        "messages": log["messages"],
        "reward": log["aggregated_return"],
        "instance_id": log["instance_id"],
        "extra_info": {**log["extra_info"], "label": episode.problem.source, "temperature": 0.8},
        "execution_details": {},
        "multi_turn_data": {**played, "gamma": 0.4, "max_turns": 3},
    }


def evaluated(ended: Sequence[Episode]) -> dict[str, Any]:
    """Of its evaluation script, which has one sample of a problem."""
    found = {}
    for episode in ended:
        if episode.sample == 0:
            problem, log = episode.problem, logged(episode)
            kept = {name: log[name] for name in ("num_turns", "turn_rewards", "aggregated_return", "history", "messages")}
            name = f"{problem.problem_id}_{problem.name}.py"
            found[problem.key] = {"level": problem.level, "problem_id": problem.problem_id, "problem_name": name, **kept}
    return {"metadata": {"run_name": "x", "model": "Qwen/Qwen3-8B", "max_turns": 3, "gamma": 0.4}, "summary": {}, "problems": found}


def dump(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False))
    return path


@pytest.fixture(scope="module")
def ended() -> list[Episode]:
    return episodes(PLAYED)


@pytest.fixture
def file(ended: list[Episode], tmp_path: Path) -> Path:
    return dump(tmp_path / "rollout_data_1.json", [buffered(episode) for episode in ended])


def read_as(path: Path, content: Any) -> Dump:
    return read_dump(dump(path, content))


# ------------------------------------------------------------------ reading


def test_what_the_trainer_said_is_kept(file: Path, ended: list[Episode]) -> None:
    found = read_dump(file)
    assert (found.form, found.max_turns, found.gamma, found.notes) == ("rollout_data", 3, 0.4, ())
    for ours, theirs in zip(ended, found.episodes, strict=True):
        assert (theirs.key, theirs.problem.source, theirs.rewards_T) == (ours.key, ours.problem.source, ours.rewards_T)
        assert theirs.stop_reason == ours.stop_reason
        for a, b in zip(ours.turns, theirs.turns, strict=True):
            assert (b.messages, b.generation.text, b.code, b.feedback) == (a.messages, a.generation.text, a.code, a.feedback)
            assert (b.verdict.compiled, b.verdict.correct) == (a.verdict.compiled, a.verdict.correct)
            assert b.verdict.speedup == a.verdict.speedup


def test_nothing_of_it_passes_for_a_verdict_of_ours(file: Path) -> None:
    for turn in (turn for episode in read_dump(file).episodes for turn in episode.turns):
        assert (turn.verdict.mode, turn.verdict.clock, turn.verdict.isolation) == ("imported", "recorded", ())
        assert turn.reward.parts == {"imported": turn.reward.value}
        if turn.verdict.timing is not None:
            assert turn.verdict.timing.baseline_kind == "imported"


def test_its_four_things_are_told_from_the_dump(file: Path, ended: list[Episode]) -> None:
    found = read_dump(file)
    told, wanted = (conduct(info(PLAYED), each) for each in (found.episodes, ended))
    for fit in (told.history, told.feedback, told.rewards, told.stop):
        assert fit.count == fit.of > 0
    assert told.history.rules == ("accumulate",) and told.feedback.rules == ("tritonforge",)
    assert told.rewards.rules == ("tritonforge",) and "1.3 (tritonforge)" in told.stop.rules
    assert told == wanted
    assert measure(info(PLAYED).asked, found.episodes).steps == measure(info(PLAYED).asked, ended).steps


def test_the_log_and_the_evaluation_say_the_same(ended: list[Episode], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for number, episode in enumerate(ended):
        dump(tmp_path / "logs" / f"trajectory_{number:03}.json", logged(episode))
    (tmp_path / "logs" / "turn_kernelbench_1_t0.json").write_text("{}")  # lies beside them, and is not read
    logs = read_dump(tmp_path / "logs")
    assert logs.form == "trajectory" and [e.rewards_T for e in logs.episodes] == [e.rewards_T for e in ended]
    assert len(logs.notes) == 2 and "Turn limit and gamma are not said" in logs.notes[0] and "Sources" in logs.notes[1]
    script = read_as(tmp_path / "results.json", evaluated(ended))
    first = [e for e in ended if e.sample == 0]
    assert script.form == "results" and [e.rewards_T for e in script.episodes] == [e.rewards_T for e in first]
    assert (script.reward.correct, script.episodes[0].problem.name) == (1.0, "P1")
    assert script.episodes[0].turns[0].generation.model == "Qwen/Qwen3-8B"


def test_one_trajectory_alone_is_read(ended: list[Episode], tmp_path: Path) -> None:
    (found,) = read_as(tmp_path / "one.json", logged(ended[0])).episodes
    assert found.rewards_T == ended[0].rewards_T


def test_messages_that_did_not_accumulate_are_known_of_the_last_turn_alone(ended: list[Episode], tmp_path: Path) -> None:
    episode = next(e for e in ended if len(e.turns) == 3)
    entry = buffered(episode)
    restated = {"role": "user", "content": "## Previous Attempt 1\n...\n\n" + entry["messages"][1]["content"]}
    entry["messages"] = [entry["messages"][0], restated, {"role": "assistant", "content": episode.turns[2].generation.text}]
    (found,) = read_as(tmp_path / "d.json", [entry]).episodes
    assert [len(turn.messages) for turn in found.turns] == [0, 0, 2]
    assert [turn.generation.text for turn in found.turns] == [turn.generation.text for turn in episode.turns]
    assert conduct(info(PLAYED), [found]).history == Fit((), 0, 0)


def test_an_example_in_the_prompt_is_no_reply(ended: list[Episode], tmp_path: Path) -> None:
    entry = buffered(ended[0])
    example = [{"role": "user", "content": "Such as?"}, {"role": "assistant", "content": "Like this."}]
    entry["messages"] = [entry["messages"][0], *example, *entry["messages"][1:]]
    (found,) = read_as(tmp_path / "d.json", [entry]).episodes
    assert [turn.generation.text for turn in found.turns] == [turn.generation.text for turn in ended[0].turns]
    assert [len(turn.messages) for turn in found.turns] == [len(turn.messages) + 2 for turn in ended[0].turns]


def entry_that(message: str, compiled: bool = False, code: str = "class ModelNew: ...") -> dict[str, Any]:
    result = {"compiled": compiled, "correctness": False, "runtime": None, "error_message": message}
    return {"turn_idx": 0, "kernel_code": code, "eval_result": result, "reward": 0.1 if compiled else 0.0, "speedup": None}


@pytest.mark.parametrize(
    ("entry", "status", "category"),
    [
        (entry_that("no custom model source found", code=""), Status.NO_CODE, ""),
        (entry_that("No valid Triton code extracted", code=""), Status.NO_CODE, ""),
        (entry_that("", code=""), Status.NO_CODE, ""),
        (entry_that("Submission failed validation: must contain @triton.jit"), Status.REJECTED, ""),
        (entry_that("Current implementation con't pass compile check"), Status.BUILD_ERROR, ""),
        (entry_that("Evaluation timeout (60s)"), Status.TIMEOUT, ""),
        (entry_that("Segmentation fault (memory access violation)"), Status.CRASHED, "SIGSEGV"),
        (entry_that("Process aborted (likely GPU memory fault)"), Status.CRASHED, "SIGABRT"),
        (entry_that("", compiled=True), Status.WRONG_OUTPUT, ""),
    ],
)
def test_its_sentences_become_statuses_and_compiled_stays_what_it_said(
    entry: dict[str, Any], status: Status, category: str, ended: list[Episode], tmp_path: Path
) -> None:
    content = evaluated(ended[:1])
    (data,) = content["problems"].values()
    data |= {"history": [entry], "turn_rewards": [entry["reward"]], "messages": data["messages"][:2]}
    (found,) = read_as(tmp_path / "results.json", content).episodes
    verdict = found.turns[0].verdict
    assert (verdict.status, verdict.category, verdict.compiled) == (status, category, entry["eval_result"]["compiled"])
    assert found.stop_reason is StopReason.EXHAUSTED  # one turn of three, and not correct


def test_what_is_odd_about_a_dump_is_said(ended: list[Episode], tmp_path: Path) -> None:
    content = [buffered(episode) for episode in ended]
    content[0]["multi_turn_data"]["aggregated_return"] += 1
    content[1]["messages"][2]["content"] = "Error: Failed to generate response in turn 0"
    broken = next(
        entry["eval_result"]
        for trajectory in content
        for entry in trajectory["multi_turn_data"]["history"]
        if "con't" in entry["eval_result"]["error_message"]
    )
    broken["error_message"] = "HTTPConnectionPool(host='x', port=18188): Max retries exceeded"
    notes = read_as(tmp_path / "d.json", content).notes
    assert notes[2].startswith("1 kernels were scored 0 because their evaluation failed, not they")
    assert notes[0] == f"1 of {len(ended)} aggregated returns are not the sum of gamma^t r_t with gamma 0.4."
    assert notes[1].startswith("1 replies are the sentence of a failed request")
    failed = evaluated(ended)
    failed["problems"]["level1_problem1"] = {"error": "CUDA\nerror", "level": 1, "problem_id": 1}
    script = read_as(tmp_path / "results.json", failed)
    assert script.episodes[0].stop_reason is StopReason.INFRA_ERROR and script.episodes[0].error == "imported: CUDA error"
    assert any("1 problems have an error in place of a trajectory" in note for note in script.notes)


# ------------------------------------------------------------------ refusals


def without(entry: Any, *path: str) -> Any:
    """A copy of a dump's entry that lacks one thing."""
    copy = json.loads(json.dumps(entry))
    place = copy
    for name in path[:-1]:
        place = place[int(name)] if isinstance(place, list) else place[name]
    del place[path[-1]]
    return copy


@pytest.mark.parametrize(
    "path",
    [
        ("extra_info",),
        ("extra_info", "level"),
        ("messages",),
        ("multi_turn_data",),
        ("multi_turn_data", "turn_rewards"),
        ("multi_turn_data", "history"),
        ("multi_turn_data", "history", "0", "eval_result"),
        ("multi_turn_data", "gamma"),
    ],
)
def test_a_trajectory_that_lacks_something_is_one_line_that_says_where(
    path: tuple[str, ...], ended: list[Episode], tmp_path: Path
) -> None:
    content = [buffered(ended[0]), without(buffered(ended[1]), *path)]
    with pytest.raises(DatasetError, match=rf"d\.json, entry 2 is no multi-turn trajectory of TritonForge: it has no {path[-1]}$"):
        read_as(tmp_path / "d.json", content)


@pytest.mark.parametrize("value", [None, "much", float("nan")])
def test_a_reward_that_is_no_number_is_refused(value: object, ended: list[Episode], tmp_path: Path) -> None:
    content = [buffered(ended[0])]
    content[0]["multi_turn_data"]["turn_rewards"][0] = value
    with pytest.raises(DatasetError, match="entry 1 is no multi-turn trajectory of TritonForge, or damaged"):
        read_as(tmp_path / "d.json", content)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("extra_info", "level"), -1),
        (("multi_turn_data", "gamma"), float("nan")),
        (("multi_turn_data", "max_turns"), -5),
        (("multi_turn_data", "history", 0, "generation_time"), float("inf")),
        (("multi_turn_data", "history", 0, "generation_time"), -3),
    ],
)
def test_a_number_that_cannot_be_is_one_line_that_says_where(
    path: tuple[str | int, ...], value: float, ended: list[Episode], tmp_path: Path
) -> None:
    content = [buffered(ended[0])]
    place: Any = content[0]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(DatasetError, match=r"d\.json, entry 1 is no multi-turn trajectory of TritonForge, or damaged"):
        read_as(tmp_path / "d.json", content)


def test_a_trajectory_without_a_turn_is_read(ended: list[Episode], tmp_path: Path) -> None:
    content = {**logged(ended[0]), "history": [], "turn_rewards": [], "messages": logged(ended[0])["messages"][:2]}
    (found,) = read_as(tmp_path / "trajectory_1.json", content).episodes
    assert (found.turns, found.stop_reason) == ((), StopReason.EXHAUSTED)


def test_what_is_no_dump_at_all_is_refused(ended: list[Episode], tmp_path: Path) -> None:
    for content in ({}, "text", 3, {"problems": []}, [1]):
        with pytest.raises(DatasetError, match="no multi-turn trajectory of TritonForge"):
            read_as(tmp_path / "d.json", content)
    with pytest.raises(DatasetError, match="holds no trajectory"):
        read_as(tmp_path / "d.json", [])
    with pytest.raises(DatasetError, match="holds no trajectory"):
        read_dump(tmp_path)
    (tmp_path / "d.json").write_text("[" * 100_000)
    with pytest.raises(DatasetError, match=r"d\.json is not JSON"):
        read_dump(tmp_path / "d.json")
    (tmp_path / "d.json").write_text("{")
    with pytest.raises(DatasetError, match=r"d\.json is not JSON"):
        read_dump(tmp_path / "d.json")
    with pytest.raises(ConfigError, match=r"cannot read .*none\.json: No such file"):
        read_dump(tmp_path / "none.json")
    other = buffered(ended[1])
    other["multi_turn_data"]["gamma"] = 0.5
    with pytest.raises(DatasetError, match=r"different gamma: 0\.4, 0\.5"):
        read_as(tmp_path / "d.json", [buffered(ended[0]), other])


# ------------------------------------------------------------------ the command


def test_an_imported_run_is_a_run_that_says_so(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["import", file.name, "--name", "theirs"]) == 0
    out = capsys.readouterr().out
    assert "as another trainer judged them: nothing was verified here" in out
    assert out.endswith("runs/theirs/reports/MULTI_TURN_REPORT.md\n")
    report = Path("runs/theirs/reports/MULTI_TURN_REPORT.md").read_text()
    assert "> **Warning:** verdicts, times and rewards are another trainer's word." in report
    run = RunReader(Path("runs/theirs"))
    assert run.load_episodes() == sorted(read_dump(file).episodes, key=lambda e: run.info.asked.index(e.key))
    assert main(["import", file.name, "--name", "theirs"]) == 0  # the same again changes nothing
    capsys.readouterr()
    for command, words in (
        (["replay", "theirs"], "theirs was imported"),
        (["import", "rollout_data_1.json"], "usage: kernel-env import FILE --name RUN"),
    ):
        assert main(command) == 2
        assert words in capsys.readouterr().err
    file.write_text(file.read_text().replace("con't", "can't"))
    assert main(["import", file.name, "--name", "theirs"]) == 2
    assert "was begun with other settings" in capsys.readouterr().err


def test_an_imported_run_is_held_against_ours_only_when_told(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "runs", replace(PLAYED, seed=3), "ours")
    assert main(["import", file.name, "--name", "theirs"]) == 0
    assert main(["compare", "ours", "theirs"]) == 2
    error = capsys.readouterr().err
    assert "not comparable" in error and "verification (ours: process; theirs: imported)" in error
    assert main(["compare", "ours", "theirs", "--mixed", "--json", "c.json"]) == 0
    out = capsys.readouterr().out
    for row in ("Message accumulation", "Reward calculation", "Average change into turn 2", "Ends at a reward of"):
        assert f"\n| {row} | " in out
    found = from_json(Comparison, json.loads(Path("c.json").read_text()))
    assert [side.conduct.rewards.rules for side in found.sides] == [("tritonforge",)] * 2


def test_names_that_no_terminal_can_show_are_no_obstacle(
    ended: list[Episode], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    better = next(e for e in ended if e.turns[-1].verdict.correct)
    for name, chosen in (("a", better), ("b", replace(better, turns=better.turns[:1]))):
        entry = buffered(chosen)
        entry["extra_info"]["problem_name"] = f"x\ud800\x1b[31m{name}"
        if name == "b":
            entry["multi_turn_data"]["history"][0]["eval_result"]["correctness"] = False
        (tmp_path / f"{name}.json").write_text(json.dumps([entry]))
        assert main(["import", f"{name}.json", "--name", name]) == 0
    assert main(["compare", "a", "b", "--html", "c.html"]) == 0
    out = capfd.readouterr().out
    assert "x\ufffd\ufffd[31ma" in out and "\x1b" not in out
