"""Rate limits on this side: never more than allowed in any minute, first come first served, and nobody waits for ever.

The minute is a tenth of a second here, on the real clock: what is asserted holds however slow the machine is.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from rollout.policies.limits import RateLimiter, Ticket

MINUTE_S = 0.1
HANGS_S = 60.0


def limiter(requests: int | None = None, tokens: int | None = None) -> RateLimiter:
    return RateLimiter(requests, tokens, window_s=MINUTE_S)


async def admitted(limit: RateLimiter, *tokens: int) -> list[Ticket]:
    """Tickets of so many requests that come at once."""
    async with asyncio.timeout(HANGS_S):
        return await asyncio.gather(*(limit.admit(count) for count in tokens))


async def test_no_minute_sees_more_requests_than_allowed() -> None:
    tickets = await admitted(limiter(requests=3), *[0] * 10)
    assert all(later.at_s - earlier.at_s >= MINUTE_S for earlier, later in zip(tickets, tickets[3:], strict=False))


async def test_no_minute_sees_more_tokens_than_allowed() -> None:
    tickets = await admitted(limiter(tokens=100), *[40, 40, 40, 90, 10, 100])
    for first in tickets:
        assert sum(t.tokens for t in tickets if 0 <= t.at_s - first.at_s < MINUTE_S) <= 100


async def test_who_comes_first_is_served_first_however_much_it_needs() -> None:
    limit, served = limiter(tokens=100), []

    async def ask(name: str, tokens: int) -> None:
        await limit.admit(tokens)
        served.append(name)

    async with asyncio.timeout(HANGS_S), asyncio.TaskGroup() as group:
        for name, tokens in (("large", 90), ("larger", 95), ("small", 1), ("tiny", 0)):
            group.create_task(ask(name, tokens))
    assert served == ["large", "larger", "small", "tiny"]


async def test_tokens_that_were_not_needed_are_given_back_at_once() -> None:
    limit = RateLimiter(None, 100, window_s=HANGS_S * 10)  # nothing expires while this runs
    (ticket,) = await admitted(limit, 100)
    waiting = asyncio.create_task(limit.admit(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    limit.settle(ticket, 40)
    async with asyncio.timeout(HANGS_S):
        await waiting


async def test_a_reply_longer_than_thought_counts_in_full() -> None:
    limit = limiter(tokens=100)
    (first,) = await admitted(limit, 10)
    limit.settle(first, 500)
    (second,) = await admitted(limit, 10)
    assert second.at_s - first.at_s >= MINUTE_S


async def test_a_request_larger_than_the_limit_is_admitted_alone() -> None:
    small, huge, after = await admitted(limiter(tokens=100), 10, 1000, 10)
    assert huge.at_s - small.at_s >= MINUTE_S and after.at_s - huge.at_s >= MINUTE_S


async def test_who_gives_up_waiting_leaves_the_line() -> None:
    limit = RateLimiter(1, None, window_s=HANGS_S * 10)
    (first,) = await admitted(limit, 0)
    given_up, patient = asyncio.create_task(limit.admit(0)), asyncio.create_task(limit.admit(0))
    await asyncio.sleep(0)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    first.at_s -= HANGS_S * 10  # its minute is over
    limit.settle(first, 0)
    async with asyncio.timeout(HANGS_S):
        await patient


async def test_without_limits_nothing_waits() -> None:
    limit = RateLimiter(None, None, now=lambda: 1 / 0)  # nor is the clock read
    assert len(await admitted(limit, *[10**9] * 1000)) == 1000


async def test_the_clock_is_not_the_policys_own() -> None:
    """That one may be recorded, and stand still."""
    assert await admitted(RateLimiter(1, None), 0)
    assert RateLimiter(1, None)._now is time.monotonic
