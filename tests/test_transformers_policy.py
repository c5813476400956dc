"""A model in this process: its tokens and their probabilities, batches that change nothing, and what ends them."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kernel_env.errors import BadReply, ConfigError, EndpointUnreachable, ModelNotFound, PolicyError
from kernel_env.schema import Generation, from_json, to_json
from rollout.policies import Endpoint, GenerationRequest, Policy, Sampling, make_policy
from tests.tiny_model import TEMPLATE, tiny_model

pytestmark = pytest.mark.external
needs_extra = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra `transformers`")
GREEDY = Sampling(temperature=0, max_tokens=12)
DRAWN = Sampling(temperature=1.3, top_p=0.9, max_tokens=12, seed=1)
ENDLESS = replace(GREEDY, max_tokens=30000)
"""Takes longer than any test may."""
PATIENCE_S = 60.0


def ask(text: str, sampling: Sampling = GREEDY, **more: Any) -> GenerationRequest:
    return GenerationRequest(({"role": "user", "content": text},), sampling, "level1_problem1", 0, **more)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"))


@asynccontextmanager
async def playing(model: Path) -> AsyncIterator[Policy]:
    policy = make_policy(f"transformers/{model}")
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield policy
    finally:
        await policy.aclose()


async def replies(model: Path, *requests: GenerationRequest) -> list[Generation]:
    """All asked at the same time: one batch."""
    async with playing(model) as policy:
        return await asyncio.gather(*map(policy.generate, requests))


def encoded(model: Path, request: GenerationRequest, **options: Any) -> tuple[int, ...]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return tuple(tokenizer.apply_chat_template(list(request.messages), add_generation_prompt=True, return_dict=False, **options))


# ------------------------------------------------------------------ tokens and their probabilities


@needs_extra
async def test_the_policy_keeps_the_contract(model: Path) -> None:
    policy = make_policy(f"transformers/{model}", endpoint=Endpoint())
    await policy.preflight()
    generation = await policy.generate(ask("hi"))
    assert from_json(Generation, to_json(generation)) == generation
    assert (policy.name, generation.model) == (f"transformers/{model}", str(model))
    assert policy.covers("level4_problem99")
    assert (policy.capabilities.token_ids, policy.capabilities.logprobs, policy.capabilities.thinking) == (True, True, True)
    assert generation.prompt_ids == encoded(model, ask("hi"))
    assert generation.output_ids is not None and generation.prompt_ids is not None
    assert (generation.usage.prompt_tokens, generation.usage.completion_tokens) == (
        len(generation.prompt_ids),
        len(generation.output_ids),
    )
    await policy.aclose()
    await policy.aclose()


@needs_extra
async def test_log_probabilities_are_those_of_the_model_itself_whatever_was_drawn_from(model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model)
    for reply in await replies(model, ask("hi"), ask("hello there", DRAWN), ask("hey", replace(DRAWN, temperature=0.2))):
        assert reply.prompt_ids and reply.output_ids and reply.output_logprobs
        with torch.no_grad():
            logits = network(torch.tensor([reply.prompt_ids + reply.output_ids])).logits[0, len(reply.prompt_ids) - 1 : -1]
        of_tokens = logits.log_softmax(-1).gather(-1, torch.tensor(reply.output_ids)[:, None])[:, 0].tolist()
        assert list(reply.output_logprobs) == pytest.approx(of_tokens, abs=1e-4)


@needs_extra
async def test_temperature_0_is_what_transformers_itself_generates(model: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model)
    requests = [ask("hi"), ask("and a longer question"), ask("hi", Sampling(temperature=None, max_tokens=12))]
    for request, reply in zip(requests, await replies(model, *requests), strict=True):
        prompt = torch.tensor([encoded(model, request)])
        whole = network.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12)
        assert reply.output_ids == tuple(whole[0, prompt.shape[1] :].tolist())


@needs_extra
async def test_a_batch_changes_no_reply(model: Path, batches: list[int]) -> None:
    """Neither its neighbours nor the padding in front of it."""
    requests = [
        ask("a"),
        ask("a much longer question, so that the others are padded " * 3, DRAWN),
        ask("b", replace(DRAWN, max_tokens=5)),
        ask("c", replace(DRAWN, temperature=0.5, top_p=None)),
    ]
    together = await replies(model, *requests)
    async with playing(model) as policy:
        alone = [await policy.generate(request) for request in requests]
    for one, other in zip(together, alone, strict=True):
        assert one.output_logprobs == pytest.approx(other.output_logprobs, abs=1e-4)
        assert replace(one, duration_s=0, output_logprobs=None) == replace(other, duration_s=0, output_logprobs=None)
    assert [reply.usage.completion_tokens for reply in together] == [12, 12, 5, 12]
    assert batches == [4, 1, 1, 1, 1]


@needs_extra
async def test_a_seed_decides_the_reply(model: Path) -> None:
    seeds = (1, 1, 2, None, None)
    same, again, other, free, freer = [
        r.output_ids for r in await replies(model, *[ask("hi", replace(DRAWN, seed=s)) for s in seeds])
    ]
    assert same == again
    assert len({same, other, free, freer}) == 4


@dataclass
class Numbers:
    """Stands in for a row's random numbers."""

    number: float

    def random(self) -> float:
        return self.number


@needs_extra
@pytest.mark.parametrize(
    ("temperature", "top_p", "shares"),
    [
        (1.0, 1.0, [500, 300, 200]),
        (1.0, 0.8, [625, 375, 0]),
        (1.0, 0.6, [625, 375, 0]),
        (1.0, 0.3, [1000, 0, 0]),
        (0.5, 1.0, [658, 237, 105]),
        (0.5, 0.6, [1000, 0, 0]),
        (0.0, 1.0, [1000, 0, 0]),
    ],
)
def test_tokens_are_drawn_in_proportion_to_their_tempered_share(temperature: float, top_p: float, shares: list[int]) -> None:
    import torch

    from rollout.policies.local_model import Row, drawn

    rows = [
        Row((), 1, temperature, top_p, Numbers((n + 0.5) / 1000), reply=None)  # type: ignore[arg-type]
        for n in range(1000)
    ]
    tokens = drawn(torch.tensor([0.3, 0.2, 0.5]).log().expand(1000, 3), rows)
    counts = Counter(tokens[:, 0].tolist())
    assert [counts[token] for token in (2, 0, 1)] == shares


@needs_extra
async def test_the_same_seed_draws_other_numbers_for_each_episode_and_turn(model: Path) -> None:
    """Else a second try would repeat the first one, and all problems' samples would be lucky together."""
    asked = ask("hi", DRAWN)
    again, first, other, later = await replies(
        model, asked, asked, replace(asked, episode="level1_problem2"), replace(asked, turn=1)
    )
    assert again.output_ids == first.output_ids
    assert len({first.output_ids, other.output_ids, later.output_ids}) == 3


# ------------------------------------------------------------------ ends


@needs_extra
async def test_a_token_that_ends_the_turn_is_kept_as_a_token_and_left_out_of_the_text(model: Path, tmp_path: Path) -> None:
    (whole,) = await replies(model, ask("hi"))
    assert whole.output_ids is not None and whole.finish_reason == "length"
    end = whole.output_ids[5]
    at = whole.output_ids.index(end)
    (cut,) = await replies(tiny_model(tmp_path / "ends", ends=[end]), ask("hi"))
    assert (cut.output_ids, cut.finish_reason) == (whole.output_ids[: at + 1], "stop")
    assert whole.text.startswith(cut.text) and len(cut.text) < len(whole.text)
    (last,) = await replies(tmp_path / "ends", ask("hi", replace(GREEDY, max_tokens=at + 1)))
    assert last.finish_reason == "stop"  # it ended by itself, with the last token that it was allowed


@needs_extra
async def test_nothing_else_is_left_out_of_the_text(model: Path) -> None:
    from transformers import AutoTokenizer

    wild = Sampling(temperature=100.0, max_tokens=64)
    made = await replies(model, *[ask("hi", replace(wild, seed=seed)) for seed in range(64)])
    tokenizer = AutoTokenizer.from_pretrained(model)
    for reply in made:
        assert reply.output_ids is not None
        shown = reply.output_ids[:-1] if reply.finish_reason == "stop" else reply.output_ids
        assert reply.text == tokenizer.decode(shown)
    text = "".join(reply.text for reply in made)
    assert "<think>" in text and "</think>" in text and "<|im_start|>" in text
    assert "<|im_end|>" not in text


@needs_extra
async def test_a_reply_ends_where_the_context_does(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "short", context=64)
    async with playing(model) as policy:
        reply = await policy.generate(ask("hi", Sampling(temperature=0, max_tokens=None)))
        assert (reply.usage.prompt_tokens + reply.usage.completion_tokens, reply.finish_reason) == (64, "length")
        with pytest.raises(PolicyError, match=r"a conversation of \d+ tokens fills its context of 64"):
            await policy.generate(ask("a question too long for it " * 9))


# ------------------------------------------------------------------ prompts


@needs_extra
async def test_thinking_is_the_templates_affair(model: Path) -> None:
    wishes = (None, True, False)
    made = await replies(model, *[ask("hi", thinking=wish) for wish in wishes])
    assert [reply.prompt_ids for reply in made] == [
        encoded(model, ask("hi")),
        encoded(model, ask("hi"), enable_thinking=True),
        encoded(model, ask("hi"), enable_thinking=False),
    ]
    left, on, off = made
    assert left.output_ids == on.output_ids != off.output_ids
    assert off.usage.prompt_tokens > on.usage.prompt_tokens  # an empty thought, already there


@needs_extra
async def test_a_prompt_of_tokens_is_taken_as_it_is(model: Path) -> None:
    ids = encoded(model, ask("hi"))[3:]
    (reply,) = await replies(model, ask("something else", prompt_ids=ids))
    assert reply.prompt_ids == ids
    assert reply.output_ids != (await replies(model, ask("something else")))[0].output_ids


@needs_extra
async def test_a_request_that_cannot_be_answered_leaves_its_neighbours_alone(model: Path) -> None:
    async with playing(model) as policy:
        good, bad, empty = await asyncio.gather(
            *(policy.generate(r) for r in (ask("hi"), ask("hi", prompt_ids=(3, 999)), ask("hi", prompt_ids=()))),
            return_exceptions=True,
        )
        assert isinstance(good, Generation)
        assert isinstance(bad, PolicyError) and "vocabulary" in str(bad)
        assert isinstance(empty, PolicyError)


TEMPLATES = {
    "none": (None, {}, ConfigError, "has no chat template"),
    "no choice": ("{{ messages[0].content }}", {"thinking": False}, ConfigError, "cannot be told whether to think"),
    "refusing": (
        "{% if messages[0].content == 'hi' %}{{ raise_exception('not you again') }}{% endif %}" + TEMPLATE,
        {},
        PolicyError,
        "not you again",
    ),
}


@needs_extra
@pytest.mark.parametrize("name", TEMPLATES)
async def test_what_a_template_does_not_do_is_said(name: str, tmp_path: Path) -> None:
    template, more, kind, said = TEMPLATES[name]
    model = tiny_model(tmp_path, template=template)
    async with playing(model) as policy:
        await policy.preflight()
        with pytest.raises(kind, match=said):
            await policy.generate(ask("hi", **more))
        assert (await policy.generate(ask("", prompt_ids=(70, 71)))).prompt_ids == (70, 71)  # tokens need no template


# ------------------------------------------------------------------ batches


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each batch had, noted when it begins."""
    from rollout.policies.local_model import LocalModel

    sizes: list[int] = []
    answer = LocalModel.answer

    def noted(self: LocalModel, rows: Sequence[Any]) -> None:
        sizes.append(len(rows))
        answer(self, rows)

    monkeypatch.setattr(LocalModel, "answer", noted)
    return sizes


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - it becomes true in another thread
            await asyncio.sleep(0.001)


@needs_extra
async def test_requests_that_come_while_a_batch_is_generated_form_the_next(model: Path, batches: list[int]) -> None:
    async with playing(model) as policy:
        first = asyncio.create_task(policy.generate(ask("first")))
        await until(lambda: batches)  # the event loop goes round while the model is at work
        assert not first.done()
        await asyncio.gather(first, *(policy.generate(ask(f"later {n}")) for n in range(3)))
    assert batches == [1, 3]


@needs_extra
async def test_a_short_reply_does_not_wait_for_a_long_one(model: Path, batches: list[int]) -> None:
    async with playing(model) as policy:
        long, short = (asyncio.create_task(policy.generate(ask("hi", s))) for s in (ENDLESS, replace(GREEDY, max_tokens=2)))
        assert (await short).usage.completion_tokens == 2
        assert not long.done()
        long.cancel()
    assert batches == [2]


@needs_extra
async def test_a_cancelled_request_ends_and_its_neighbours_do_not(model: Path, batches: list[int]) -> None:
    async with playing(model) as policy:
        endless, other = (asyncio.create_task(policy.generate(request)) for request in (ask("hi", ENDLESS), ask("hello")))
        await until(lambda: batches == [2])
        endless.cancel()
        reply = await other
        with pytest.raises(asyncio.CancelledError):
            await endless
        again = await policy.generate(ask("hello"))  # which an endless batch before it would keep from ever being had
        assert reply.output_ids == again.output_ids


@needs_extra
async def test_a_request_that_is_cancelled_before_its_batch_begins_is_in_none(model: Path, batches: list[int]) -> None:
    async with playing(model) as policy:
        tasks = [asyncio.create_task(policy.generate(ask("hi"))) for _ in range(2)]
        await asyncio.sleep(0)  # both have asked
        tasks[0].cancel()
        await tasks[1]
    assert batches == [1]


@needs_extra
async def test_closing_ends_what_is_being_generated(model: Path, batches: list[int]) -> None:
    policy = make_policy(f"transformers/{model}")
    endless = asyncio.create_task(policy.generate(ask("hi", ENDLESS)))
    await until(lambda: batches)
    async with asyncio.timeout(PATIENCE_S):
        await policy.aclose()
        with pytest.raises(asyncio.CancelledError):
            await endless


# ------------------------------------------------------------------ what is no model


@needs_extra
async def test_weights_that_are_no_numbers_give_no_reply(model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    broken = AutoModelForCausalLM.from_pretrained(model)
    broken.lm_head.weight.data.fill_(math.nan)
    broken.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path)
    with pytest.raises(BadReply, match="logits are not numbers"):
        await replies(tmp_path, ask("hi"))


@needs_extra
@pytest.mark.parametrize("name", ["/nowhere/at/all", "no model/at all", "empty"])
async def test_a_model_that_is_nowhere_is_not_found(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    policy = make_policy(f"transformers/{name}")
    with pytest.raises(ModelNotFound, match=name):
        await policy.preflight()
    with pytest.raises(ModelNotFound):
        await policy.generate(ask("hi"))
    await policy.aclose()


@needs_extra
async def test_a_model_whose_files_are_broken_is_said_to_be(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100] if file.suffix == ".safetensors" else file.read_bytes())
    with pytest.raises(PolicyError, match="cannot be loaded"):
        await replies(tmp_path, ask("hi"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A hub of this machine that knows no model, asked in the real one's stead."""
    import huggingface_hub.constants

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        here = f"http://127.0.0.1:{server.server_port}/{{repo_id}}/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", here)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


@needs_extra
async def test_a_name_that_the_hub_does_not_know_is_not_found(hub: None) -> None:
    with pytest.raises(ModelNotFound, match="nobody/knows-this is neither a directory here nor a model on the hub"):
        await make_policy("transformers/nobody/knows-this").preflight()


@needs_extra
async def test_without_the_hub_a_name_cannot_be_looked_up(hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EndpointUnreachable, match="the hub cannot be asked"):
        await make_policy("transformers/nobody/knows-this").preflight()


async def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # which makes importing it an ImportError
    monkeypatch.delitem(sys.modules, "rollout.policies.local_model", raising=False)
    with pytest.raises(ConfigError, match=r"run `pip install 'kernel-env\[transformers\]'`"):
        await make_policy("transformers/some/model").preflight()


def test_nothing_is_imported_before_the_model_is_wanted() -> None:
    code = "import sys; from rollout.policies import make_policy; make_policy('transformers/m'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_fields_for_a_server_are_refused() -> None:
    with pytest.raises(ConfigError, match="extra_body is for servers"):
        make_policy("transformers/m", endpoint=Endpoint(extra_body={"top_k": 3}))
