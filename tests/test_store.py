"""The run directory: durable turns, resuming, and refusing what would spoil a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.errors import ConfigError, InfraError
from kernel_env.schema import Episode, Generation, Status, StopReason
from rollout import durable
from rollout.report import write_report
from rollout.store import RunReader, RunStore, open_run
from tests.sample_run import ASKED, CONFIG, ENVIRONMENT, open_sample, problem, run_info, save, solved, tree, turn


def document(path: Path) -> dict[str, object]:
    loaded = json.loads(path.read_bytes())
    assert isinstance(loaded, dict)
    return loaded


# ------------------------------------------------------------------ what is where


def test_a_run_has_the_files_of_the_multi_turn_evaluation(tmp_path: Path) -> None:
    with open_sample(tmp_path, asked=("level1_problem1",)) as store:
        save(store, solved())
        store.write_results()
        write_report(store)
    stems = [f"level1_problem1_turn{i}" for i in range(3)]
    assert set(tree(tmp_path / "r")) == {
        *(f"generated_kernels/{stem}.py" for stem in stems),
        *(f"responses/{stem}.txt" for stem in stems),
        *(f"turns/{stem}.json" for stem in stems),
        *("reports/MULTI_TURN_REPORT.md", "reports/report.html", "results.json", "progress.json"),
        *("run.json", "config.yaml", "environment.json", "problems/level1_problem1.json", "episodes/level1_problem1.json"),
    }


def test_further_samples_have_their_number_in_the_name(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved(sample=3))
    assert (tmp_path / "r/turns/level1_problem1_sample3_turn2.json").is_file()
    assert (tmp_path / "r/problems/level1_problem1.json").is_file()


def test_a_turn_file_says_what_the_policy_saw_and_what_came_of_it(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    file = document(tmp_path / "r/turns/level1_problem1_turn1.json")
    assert file["turn_idx"] == 1
    messages = file["messages"]
    assert isinstance(messages, list)
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    played = solved().turns[1]
    assert messages[-1]["content"] == played.generation.text
    assert file["history_entry"] == {
        "kernel_code": played.code,
        "has_thinking": True,
        "generation_time": 0.0,
        "eval_result": {"compiled": True, "correctness": False, "runtime": None, "error_message": "seen: wrong_output"},
        "reward": 0.1,
        "speedup": None,
    }


def test_a_turn_file_has_a_line_for_each_of_its_fields_however_many_tokens_there_are(tmp_path: Path) -> None:
    many = replace(turn(0, Status.CORRECT, 1.0, speedup=2.0), generation=Generation("ok", output_ids=tuple(range(5000))))
    with open_sample(tmp_path) as store:
        store.save_turn(problem(), 0, many)
        assert store.load_turns()["level1_problem1"] == [many]
    text = (tmp_path / "r/turns/level1_problem1_turn0.json").read_text()
    assert [line.split('"')[1] for line in text.splitlines()[1:-1]] == list(json.loads(text))


def test_runtimes_are_milliseconds_and_a_correct_turn_has_no_error(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    entry = document(tmp_path / "r/turns/level1_problem1_turn2.json")["history_entry"]
    assert isinstance(entry, dict)
    assert entry["eval_result"] == {"compiled": True, "correctness": True, "runtime": 2.0, "error_message": ""}
    assert entry["speedup"] == 2.5


def test_a_failure_without_a_message_is_named_by_its_status(tmp_path: Path) -> None:
    played = turn(0, Status.TIMEOUT, 0.1)
    with open_sample(tmp_path) as store:
        store.save_turn(problem(), 0, replace(played, verdict=replace(played.verdict, message="")))
    entry = document(tmp_path / "r/turns/level1_problem1_turn0.json")["history_entry"]
    assert isinstance(entry, dict)
    assert entry["eval_result"]["error_message"] == "timeout"


@pytest.mark.parametrize("text", ["plain\r\nreply\n", "caf\u00e9 \u2028 \U0001f680", "junk \udc80\udcff \x00 end", ""])
def test_replies_are_kept_byte_for_byte(tmp_path: Path, text: str) -> None:
    played = replace(turn(0, Status.NO_CODE, 0.0), code=text)
    played = replace(played, generation=replace(played.generation, text=text))
    with open_sample(tmp_path) as store:
        store.save_turn(problem(), 0, played)
        assert store.load_turns() == {"level1_problem1": [played]}
    raw = text.encode(errors="surrogatepass")
    assert (tmp_path / "r/responses/level1_problem1_turn0.txt").read_bytes() == raw
    assert (tmp_path / "r/generated_kernels/level1_problem1_turn0.py").read_bytes() == raw
    (tmp_path / "r/turns/level1_problem1_turn0.json").read_bytes().decode()  # strict UTF-8, whatever the reply was


def test_a_reply_without_code_has_no_kernel_file(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        store.save_turn(problem(), 0, turn(0, Status.NO_CODE, 0.0))
    assert not (tmp_path / "r/generated_kernels/level1_problem1_turn0.py").exists()


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A `runs` folder with one finished run of two episodes, one without thinking."""
    quiet = turn(0, Status.WRONG_OUTPUT, 0.1, text="no thoughts", posed=problem(2))
    with open_sample(tmp_path / "runs", asked=("level1_problem1", "level1_problem2")) as store:
        save(store, solved())
        save(store, Episode(problem(2), 0, (quiet,), StopReason.TURN_LIMIT))
        store.write_results()
    return tmp_path


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cat runs/*/turns/level1_problem1_turn*.json | jq '.messages | length'", "3\n5\n7\n"),
        (
            "cat runs/*/results.json | jq -c '.problems | .[] | {problem: .problem_name, rewards: .turn_rewards}'",
            '{"problem":"P1","rewards":[0,0.1,2.5]}\n{"problem":"P2","rewards":[0.1]}\n',
        ),
        ('grep -l "<think>" runs/*/responses/*.txt | wc -l', "3\n"),
        (
            "cat runs/*/turns/*_turn*.json | jq '.history_entry.eval_result.error_message'",
            '"seen: build_error"\n"seen: wrong_output"\n""\n"seen: wrong_output"\n',
        ),
    ],
)
def test_the_documented_shell_lines_work(finished: Path, command: str, expected: str) -> None:
    if "jq" in command and not shutil.which("jq"):
        pytest.skip("jq is not installed")
    done = subprocess.run(["bash", "-c", command], cwd=finished, capture_output=True, text=True, check=True)
    assert done.stdout.replace("0.0", "0") == expected  # jq 1.6 prints 0, jq 1.7 prints 0.0


# ------------------------------------------------------------------ reading back


def test_everything_that_was_saved_comes_back_equal(tmp_path: Path) -> None:
    episodes = [solved(), solved(sample=3), solved(problem(2)), solved(problem(10)), solved(problem(1, level=2))]
    with open_sample(tmp_path) as store:
        for episode in reversed(episodes):
            save(store, episode)
    reader = RunReader(tmp_path / "r")
    assert reader.load_episodes() == episodes, "in the order of level, problem and sample"
    assert reader.load_turns() == {e.key: list(e.turns) for e in episodes}
    assert list(reader.load_turns()) == list(ASKED)
    assert (reader.info, reader.config_text, reader.environment) == (run_info(), CONFIG, ENVIRONMENT)


def test_an_interrupted_episode_has_turns_but_no_end(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        store.save_turn(problem(), 0, solved().turns[0])
        assert store.load_turns() == {"level1_problem1": [solved().turns[0]]}
        assert store.load_episodes() == []


def test_a_run_can_be_read_while_another_process_writes_it(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
        leftover = tmp_path / "r/turns/.level1_problem2_turn0.json.tmp"
        leftover.write_text("the writer is in the middle of this")
        assert RunReader(tmp_path / "r").load_episodes() == [solved()]
        assert leftover.exists(), "a reader never touches the writer's files"


def test_files_of_others_in_the_turns_folder_are_ignored(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        (tmp_path / "r/turns/level1_problem1_turn0.json.bak").write_text("a user's copy")
        assert store.load_turns() == {}


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing is not a run directory.*no run\.json"):
        RunReader(tmp_path / "nothing")


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def _of_schema_2(file: Path) -> None:
    file.write_text(json.dumps({**document(file), "schema_version": 2}))


def _without_record(file: Path) -> None:
    file.write_text(json.dumps({k: v for k, v in document(file).items() if k != "record"}))


def _a_list(file: Path) -> None:
    file.write_text("[]")


def _another_turn(file: Path) -> None:
    file.write_bytes((file.parent / "level1_problem1_turn0.json").read_bytes())


def _gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (_truncate, "is damaged"),
        (_without_record, "is damaged .*missing field record"),
        (_a_list, "is damaged .*no JSON object"),
        (_of_schema_2, "is of schema version 2, this program reads 1"),
        (_another_turn, "holds turn 0 of level1_problem1"),
        (_gone, "is missing, but later turns are there"),
    ],
)
def test_a_spoilt_turn_file_is_one_clear_line(tmp_path: Path, damage: Callable[[Path], None], found: str) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    damage(tmp_path / "r/turns/level1_problem1_turn1.json")
    with pytest.raises(ConfigError, match=rf"level1_problem1_turn1\.json {found}") as caught:
        RunReader(tmp_path / "r").load_turns()
    assert "\n" not in str(caught.value)
    assert "another run.name" in str(caught.value)


def test_the_advice_on_a_spoilt_turn_works(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    _truncate(tmp_path / "r/turns/level1_problem1_turn1.json")
    for file in (*(tmp_path / "r/turns").glob("level1_problem1_turn*.json"), tmp_path / "r/episodes/level1_problem1.json"):
        file.unlink()
    with open_sample(tmp_path) as store:
        save(store, solved())
        assert store.load_episodes() == [solved()]


def test_an_end_that_counts_other_turns_is_refused(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    (tmp_path / "r/turns/level1_problem1_turn2.json").unlink()
    with pytest.raises(ConfigError, match=r"level1_problem1\.json counts 3 turns, but 2 are there; delete"):
        RunReader(tmp_path / "r").load_episodes()


def test_turns_of_another_problem_source_are_refused(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    file = tmp_path / "r/problems/level1_problem1.json"
    file.write_text(json.dumps({**document(file), "source": "# edited"}))
    with pytest.raises(ConfigError, match="is not the problem of its turns"):
        RunReader(tmp_path / "r").load_episodes()


# ------------------------------------------------------------------ resuming


def test_progress_does_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    episodes = [solved(), solved(sample=3), solved(problem(10))]
    seen = []
    for order in (episodes, episodes[::-1]):
        with open_sample(tmp_path / str(len(seen))) as store:
            for episode in order:
                save(store, episode)
        seen.append((store.path / "progress.json").read_bytes())
    assert seen[0] == seen[1]
    assert json.loads(seen[0]) == {
        "schema_version": 1,
        "state": "running",
        "asked": 5,
        "finished": 3,
        "failed": 0,
        "turns": 9,
        "last_episode": "level1_problem10",
    }


def test_progress_is_written_after_each_turn_and_done_at_the_end(tmp_path: Path) -> None:
    episode = solved()
    with open_sample(tmp_path, asked=(episode.key,)) as store:
        states = [document(store.path / "progress.json")]
        for played in episode.turns:
            store.save_turn(episode.problem, 0, played)
            states.append(document(store.path / "progress.json"))
        store.end_episode(episode)
    assert [state["turns"] for state in states] == [0, 1, 2, 3]
    assert {state["state"] for state in states} == {"running"}
    assert document(store.path / "progress.json")["state"] == "done"


def test_saving_a_finished_turn_again_changes_nothing_but_another_turn_is_refused(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
        before = tree(store.path)
        save(store, solved())
        assert tree(store.path) == before
        with pytest.raises(RuntimeError, match=r"level1_problem1_turn0\.json is finished"):
            store.save_turn(problem(), 0, turn(0, Status.CORRECT, 1.0))
        with pytest.raises(RuntimeError, match=r"level1_problem1\.json is finished"):
            store.end_episode(replace(solved(), stop_reason=StopReason.TURN_LIMIT))
        assert tree(store.path) == before


def test_turns_come_in_order_of_asked_episodes_that_go_on(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        with pytest.raises(RuntimeError, match="turn 0 of level1_problem1 comes before turn 1"):
            store.save_turn(problem(), 0, solved().turns[1])
        with pytest.raises(RuntimeError, match="level1_problem99 is not an episode of this run"):
            store.save_turn(problem(99), 0, solved().turns[0])
        with pytest.raises(RuntimeError, match="ends with turns that were not saved"):
            store.end_episode(solved())
        save(store, solved())
        with pytest.raises(RuntimeError, match="level1_problem1 has ended"):
            store.save_turn(problem(), 0, turn(3, Status.CORRECT, 1.0))


def test_the_first_master_seed_stands(tmp_path: Path) -> None:
    open_sample(tmp_path).close()
    with open_run(tmp_path, run_info(master_seed=8), CONFIG, ENVIRONMENT) as store:
        assert store.info.master_seed == 7


def test_another_configuration_is_refused_by_key(tmp_path: Path) -> None:
    open_sample(tmp_path).close()
    changed = CONFIG.replace("gamma: 0.4", "gamma: 0.9").replace("name: replay", "name: openai") + "timeout: 5\n"
    with pytest.raises(ConfigError) as caught:
        open_run(tmp_path, run_info(), changed, ENVIRONMENT, ignored=("rollout.concurrency",))
    assert "(policy.name replay -> openai, rollout.gamma 0.4 -> 0.9, timeout (absent) -> 5)" in str(caught.value)
    assert "choose another run.name" in str(caught.value)


def test_settings_that_cannot_change_a_result_may_differ(tmp_path: Path) -> None:
    open_sample(tmp_path).close()
    changed = CONFIG.replace("concurrency: 2", "concurrency: 8") + "display:\n  progress: false\n"
    with pytest.raises(ConfigError, match=r"display\.progress \(absent\) -> False"):
        open_run(tmp_path, run_info(), changed, ENVIRONMENT, ignored=("rollout.concurrency", "disp"))
    with open_run(tmp_path, run_info(), changed, ENVIRONMENT, ignored=("rollout.concurrency", "display")) as store:
        assert store.config_text == CONFIG, "the first configuration stands"


def test_another_layout_of_the_same_configuration_is_the_same(tmp_path: Path) -> None:
    open_sample(tmp_path).close()
    with open_run(tmp_path, run_info(), f"# written by hand\n{CONFIG}", ENVIRONMENT) as store:
        assert store.config_text == CONFIG, "the first text stands"


def test_another_selection_of_problems_is_refused(tmp_path: Path) -> None:
    open_sample(tmp_path).close()
    with pytest.raises(ConfigError, match=r"other problems or samples \(e\.g\. level2_problem1\)"):
        open_sample(tmp_path, asked=ASKED[:-1])


def test_a_problem_whose_source_changed_is_refused(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        store.save_problem(problem())
        store.save_problem(problem())
        with pytest.raises(ConfigError, match="level1_problem1 has changed since this run was begun"):
            store.save_problem(replace(problem(), source="# another"))


def test_failed_episodes_can_go_on_after_their_last_turn(tmp_path: Path) -> None:
    first = solved().turns[0]
    lost = Episode(problem(), 0, (first,), StopReason.POLICY_FAILURE, "the endpoint is gone")
    with open_sample(tmp_path) as store:
        save(store, lost)
        save(store, solved(problem(2)))
        assert document(store.path / "progress.json")["failed"] == 1
    with open_sample(tmp_path) as store:
        assert store.reopen_failed() == ["level1_problem1"]
        assert document(store.path / "progress.json")["failed"] == 0
        assert store.load_turns()["level1_problem1"] == [first]
        save(store, solved())
        assert [e.stop_reason for e in store.load_episodes()] == [StopReason.SOLVED, StopReason.SOLVED]


# ------------------------------------------------------------------ one writer, a sound place


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with open_sample(tmp_path), pytest.raises(ConfigError, match=rf"another process \(pid {os.getpid()}\) is writing .*/r"):
        open_sample(tmp_path)
    open_sample(tmp_path).close()


def test_a_refused_resume_gives_the_lock_back(tmp_path: Path) -> None:
    open_sample(tmp_path).close()
    with pytest.raises(ConfigError, match="other problems"):
        open_sample(tmp_path, asked=ASKED[:1])
    open_sample(tmp_path).close()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "/abs", "a\0b"])
def test_a_run_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"run\.name .* is not a plain folder name"):
        open_run(tmp_path, run_info(name), CONFIG, ENVIRONMENT)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_runs_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigError, match=r"cannot make the run directory .*runs/r: Not a directory"):
        open_sample(tmp_path / "runs")


def test_turns_without_a_run_file_are_not_taken_over(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    (tmp_path / "r/run.json").unlink()
    with pytest.raises(ConfigError, match=r"has turns but no run\.json"):
        open_sample(tmp_path)


def test_a_full_disk_is_the_machines_fault_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with open_sample(tmp_path) as store:
        store.save_turn(problem(), 0, solved().turns[0])
        with monkeypatch.context() as patch:
            patch.setattr(durable.os, "fsync", full)
            with pytest.raises(InfraError, match=r"cannot write .*responses/.*: No space left on device"):
                store.save_turn(problem(), 0, solved().turns[1])
        save(store, solved())
        assert store.load_episodes() == [solved()]


def test_results_are_computed_from_the_disk(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
        first = store.write_results()
        written = (store.path / "results.json").read_bytes()
    with open_sample(tmp_path) as again:
        assert isinstance(again, RunStore)
        assert again.write_results() == first == RunReader(again.path).results()
    assert (tmp_path / "r/results.json").read_bytes() == written
