"""The server against its own OpenAPI document: schemathesis sends what the document allows, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis, of the extra `dev`")

from rewards.judge.batcher import BatchConfig  # noqa: E402 - all of the file needs schemathesis
from rewards.judge.server import ServerConfig  # noqa: E402
from rewards.judge.static import StaticJudge  # noqa: E402
from tests.judge_server import JudgeServer  # noqa: E402

OPERATIONS = [("POST", "/judge"), ("POST", "/batch_judge"), ("GET", "/health"), ("GET", "/metrics.json"), ("GET", "/metrics")]
QUICK = settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
KEY = "hush"


@contextmanager
def served(key: str = "") -> Iterator[Any]:
    """The document of a server of our own."""
    config = ServerConfig(port=0, api_key=key, batches=BatchConfig(batch_timeout_s=0.0))
    with JudgeServer(StaticJudge(), config) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.fixture(scope="module")
def api() -> Iterator[Any]:
    with served() as document:
        yield document


def answer(case: Any, **headers: str) -> Any:
    """To one request, checked: documented status, media type, headers and body; no server error; no invalid request accepted."""
    response = case.call(headers=headers)
    case.validate_response(response, headers=headers, excluded_checks=[schemathesis.checks.positive_data_acceptance])
    return response


def accepted(response: Any) -> bool:
    """Or refused for what is beyond a JSON schema: that a text holds a kernel, that an answer is a number, that ids differ.

    That all requests of a batch have one or none has could be said there, but then schemathesis can make no wrong batches any more.
    """
    if response.status_code == 200:
        return True
    failure = response.json()
    of_ids = ("two requests of the batch have the same request_id", "give every request of a batch a request_id, or none of them")
    by_content = failure["kind"] in ("nothing_to_judge", "unsupported") or failure["message"].endswith(of_ids)
    return response.status_code == 422 and by_content


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_the_document_allows_is_accepted_and_answered_as_it_says(api: Any, method: str, path: str) -> None:
    @QUICK
    @given(case=api[path][method].as_strategy())
    def check(case: Any) -> None:
        response = answer(case)
        assert accepted(response), response.text

    check()


@pytest.mark.parametrize("path", ["/judge", "/batch_judge"])
def test_what_the_document_does_not_allow_is_refused(api: Any, path: str) -> None:
    """A wrong type, an unknown key, a missing one, a body of another kind."""
    seen = set()

    @QUICK
    @given(case=api[path]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
    def check(case: Any) -> None:
        response = answer(case)
        assert 400 <= response.status_code < 500
        seen.add(response.json()["kind"])

    check()
    assert "invalid_request" in seen


def test_with_a_key_the_document_says_so_and_nobody_is_answered_without_it() -> None:
    with served(KEY) as document:

        @settings(QUICK, max_examples=10)
        @given(case=document["/judge"]["POST"].as_strategy())
        def check(case: Any) -> None:
            response = answer(case, Authorization=f"Bearer {KEY}")  # which tries it with no key and with a wrong one, too
            assert accepted(response), response.text

        check()
