"""Does a policy learn from verified returns? TRL trains a tiny one on this machine's processor, and its mean return is drawn.

The policy is a Qwen3 of two layers with random weights. It cannot write, so that its vocabulary has a token for each recorded
reply, beside the few words that tell the problems apart: it learns which reply to give to which problem. All else is what it would
be for a large one: TRL's GRPOTrainer, messages, builds, verifications with fresh inputs in each batch (the same kernel twice in a
batch is verified once: a policy that chooses repeats itself, and it would have the same inputs). An episode is one turn, since a
tokenizer that overlooks words cannot show that it keeps a conversation. Speed is not measured, so a correct kernel is worth 1, and
one that only compiles 0.1.

    python -m benchmarks.learning        # needs the extra `trl`; writes docs/learning.svg
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernel_env import BlockingVerifier, load_problems
from kernel_env.episode import EpisodeConfig
from kernel_env.prompts import initial_messages
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.schema import Candidate, Problem, Verdict
from kernel_env.verifier import LocalVerifier
from rollout.adapters.trl import Rollouts, verified_return
from rollout.engine import EngineConfig
from rollout.figures import Axes, standalone
from rollout.policies.replay import BUILT_IN

PROBLEMS = ("level1_problem1", "level1_problem4", "level1_problem7")
STEPS, GROUP = 28, 16
MOST = 1.0
"""Return of an episode that cannot be better."""
EPISODE = EpisodeConfig(max_turns=1, verify=VerifyConfig(num_correct_trials=2, measure_performance=False))
TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ROLES = ("system", "user", "assistant")


class Once:
    """A verifier that is asked the same question once."""

    def __init__(self) -> None:
        self._verifier = LocalVerifier()
        self._asked: dict[tuple[str, str, int], asyncio.Future[Verdict]] = {}

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        question = problem.digest, candidate.digest, seed
        if question not in self._asked:
            self._asked[question] = asyncio.ensure_future(self._verifier.verify(problem, candidate, config, seed, order))
        return await self._asked[question]

    async def aclose(self) -> None:
        await self._verifier.aclose()


def problems() -> list[Problem]:
    return [problem for problem in load_problems("bundled", profile="cpu") if problem.key in PROBLEMS]


def recorded(posed: Sequence[Problem]) -> list[str]:
    """Every reply that is recorded for these: wrong ones, unfinished ones, right ones."""
    return [file.read_text() for problem in posed for file in sorted((BUILT_IN / "bundled/cpp").glob(f"{problem.key}_turn*.txt"))]


def telling(posed: Sequence[Problem]) -> list[str]:
    """One word of each problem that is in no other's prompt."""
    words = [re.findall(r"\w+", initial_messages(problem, EPISODE.backend)[-1]["content"]) for problem in posed]
    common = Counter(word for found in words for word in set(found))
    return [next(word for word in found if common[word] == 1) for found in words]


def tokenizer_of(words: Sequence[str], replies: Sequence[str]) -> Any:
    """Knows these words and overlooks all others; each reply is one token."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*SPECIAL, *ROLES, *words]
    spelling = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, unk_token=SPECIAL[0]))
    pattern = Regex(rf"\b({'|'.join(map(re.escape, known[len(SPECIAL) :]))})\b")
    spelling.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    spelling.add_special_tokens(list(SPECIAL))
    spelling.add_tokens([AddedToken(reply, normalized=False) for reply in replies])
    return PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token=SPECIAL[2], pad_token=SPECIAL[0], chat_template=TEMPLATE)


def tiny_qwen3(tokenizer: Any, seed: int = 1) -> Any:
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=4096, tie_word_embeddings=False, initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


def arguments(directory: str | Path, **options: Any) -> Any:
    """How TRL trains here: on the processor, without files or reports."""
    from trl import GRPOConfig

    usual = {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return GRPOConfig(str(directory), **(usual | {"seed": 5} | options))


def learn(steps: int = STEPS) -> list[float]:
    """Mean verified return of each step's batch."""
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import GRPOTrainer

    posed = problems()
    tokenizer = tokenizer_of(telling(posed), recorded(posed))
    with tempfile.TemporaryDirectory() as directory, BlockingVerifier(Once) as verifier:
        rollouts = Rollouts(posed, verifier, EngineConfig(EPISODE, concurrency=64, requests=64))
        trainer = GRPOTrainer(
            model=tiny_qwen3(tokenizer),
            reward_funcs=verified_return,
            args=arguments(
                directory, max_steps=steps, per_device_train_batch_size=GROUP * len(posed), num_generations=GROUP,
                max_completion_length=1, learning_rate=0.01, lr_scheduler_type="constant",
            ),
            train_dataset=Dataset.from_list(rollouts.rows),
            processing_class=tokenizer,
            rollout_func=rollouts,
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]


def drawn(means: Sequence[float]) -> str:
    """The picture."""
    axes = Axes((0, len(means)), (0, MOST))
    ticks = [(step, str(step)) for step in range(0, len(means) + 1, max(1, math.ceil(len(means) / 8)))]
    parts = [
        *axes.frame(ticks, [(MOST * n / 4, f"{MOST * n / 4:g}") for n in range(5)], "optimiser step"),
        axes.line([(step, mean) for step, mean in enumerate(means, start=1)], "first"),
    ]
    return standalone(parts, f"Mean verified return by optimiser step: from {means[0]:.2f} to {means[-1]:.2f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=STEPS)
    options.add_argument("--picture", type=Path, default=Path("docs/learning.svg"))
    chosen = options.parse_args()
    means = learn(chosen.steps)
    chosen.picture.write_text(drawn(means))
    print("mean verified return by step:", *(f"{mean:.2f}" for mean in means))


if __name__ == "__main__":
    main()
