"""Bradley-Terry strengths of many models against one baseline, and how sure they are. Numbers alone.

A model beats the baseline with the chance 1 / (1 + exp(-(strength + slopes @ style))), where the baseline's strength is 0 (Bradley
and Terry, "Rank analysis of incomplete block designs", Biometrika, 1952) and `style` is by how much its kernel differs in style.
Without style that is the log odds of its win rate. With it, the likelihood is maximised by Newton's method for many weightings of
the problems at once: each strength meets the slopes alone, so a step solves a system as small as there are slopes.

Axes: M models, P problems, N matches of one model, K slopes, B weightings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout.metrics import resamples

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Bounds = tuple[float, float]

_STEPS = 50
_NEAR = 1e-6
"""A step as short as this is the last one: the error left is about its square."""
_STRIDE = 4.0
"""The longest step of one number. Far from the maximum Newton's may overshoot."""
_FLAT = 1e-8
"""Share of what the games could say of the slopes below which they say nothing: all is won, or style and model are one."""
_TINY = 1e-12
_BLOCK = 1 << 15
"""Chances that are worked on at a time: a few such arrays fit a cache."""
_PLACES = {90: (50, 950), 95: (25, 975)}
"""Of the draws in their order, per mille: the ends of an interval."""


@dataclass(frozen=True)
class Played:
    """One model's matches with a verdict, at least one, and what their games say."""

    problem_N: npt.NDArray[np.intp]
    weight_N: Floats
    """Above 0."""
    won_N: Floats
    """The model's part of the weight."""
    style_NK: Floats


@dataclass(frozen=True)
class Strength:
    """On the scale of log odds."""

    value: float
    """Infinite where every game was won, or every one lost: no number fits best."""
    at_90: Bounds | None
    """Bootstrap over problems. None where all draws say the same: then nobody knows how sure it is."""
    at_95: Bounds | None


@dataclass(frozen=True)
class Fit:
    strengths_M: tuple[Strength, ...]
    slopes_K: tuple[Strength, ...]


def fit(played: Sequence[Played], problems: int) -> Fit | None:
    """With intervals. None where nothing was played, and where the games leave the slopes open: style decides every game, or goes
    with the model."""
    if not played:
        return None
    strengths, slopes = maximum(played, np.ones((1, problems)))
    if np.isnan(slopes).any():
        return None
    counts = resamples(problems)
    size = max(1, _BLOCK // max(len(one.weight_N) for one in played))
    blocks = [maximum(played, counts[at : at + size], slopes[0]) for at in range(0, len(counts), size)]
    drawn_strengths, drawn_slopes = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return Fit(
        tuple(map(_strength, strengths[0], drawn_strengths.T)),
        tuple(map(_strength, slopes[0], drawn_slopes.T)),
    )


def maximum(played: Sequence[Played], counts_BP: Floats, near_K: Floats | None = None) -> tuple[Floats, Floats]:
    """Strengths (B, M) and slopes (B, K) of the highest likelihood, each problem counted as often as `counts_BP` says.

    NaN where the games do not tell. `near_K` are slopes to begin with.
    """
    total, won = (
        np.stack([counts_BP[:, one.problem_N] @ values for one, values in parts], axis=1)
        for parts in ([(one, one.weight_N) for one in played], [(one, one.won_N) for one in played])
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        strengths = np.log(won / (total - won))
    size = played[0].style_NK.shape[1]
    slopes = np.zeros((len(counts_BP), size)) + (0.0 if near_K is None else near_K)
    if not size:
        return strengths, slopes
    settled = ~np.isfinite(strengths)  # whatever the slopes; such games say nothing of them
    fitted, slopes, known = _climb(played, counts_BP, np.where(settled, 0.0, strengths), slopes, settled)
    strengths = np.where(settled, strengths, fitted)
    strengths[~known], slopes[~known] = np.nan, np.nan
    return strengths, slopes


def _climb(
    played: Sequence[Played], counts: Floats, strengths: Floats, slopes: Floats, settled: Bools
) -> tuple[Floats, Floats, Bools]:
    """From these strengths and slopes to the maximum; and which weightings have one."""
    size = slopes.shape[1]
    for _ in range(_STEPS):
        pull, bend, most = _sums(played, counts, strengths, slopes, settled)
        left, own, mixed = pull[:, :, 0], np.maximum(bend[:, :, 0], _TINY), bend[:, :, 1 : size + 1]
        curve = (bend.sum(axis=1)[:, size + 1 :]).reshape(-1, size, size) - np.einsum("bmk,bml,bm->bkl", mixed, mixed, 1 / own)
        known = np.linalg.eigvalsh(curve)[:, 0] > _FLAT * most
        curve[~known] = np.eye(size)
        uphill = pull.sum(axis=1)[:, 1:] - np.einsum("bmk,bm->bk", mixed, left / own)
        turn = np.clip(np.linalg.solve(curve, uphill[:, :, None])[:, :, 0], -_STRIDE, _STRIDE)
        rise = np.clip((left - np.einsum("bmk,bk->bm", mixed, turn)) / own, -_STRIDE, _STRIDE)
        slopes, strengths = slopes + turn, strengths + rise
        moving = np.maximum(np.abs(turn).max(axis=1), np.abs(rise).max(axis=1)) > _NEAR
        if not (moving & known).any():
            break
    return strengths, slopes, known & ~moving


def _sums(
    played: Sequence[Played], counts: Floats, strengths: Floats, slopes: Floats, settled: Bools
) -> tuple[Floats, Floats, Floats]:
    """Over each model's matches: the gradient by strength and slopes (B, M, 1 + K), the curvature with strength, slopes and pairs
    of slopes (B, M, 1 + K + K * K); and the weight of the style that varies least (B)."""
    size = slopes.shape[1]
    pulls, bends, most = [], [], np.zeros((len(counts), size))
    for place, one in enumerate(played):
        style, ones, open_B1 = one.style_NK, np.ones((len(one.weight_N), 1)), ~settled[:, place, None]
        by = np.hstack([ones, style, (style[:, :, None] * style[:, None, :]).reshape(len(style), -1)])
        chance = slopes @ -style.T
        chance -= strengths[:, place, None]
        with np.errstate(over="ignore"):  # of a chance of 0
            np.exp(chance, out=chance)
        chance += 1
        np.reciprocal(chance, out=chance)
        drawn = counts[:, one.problem_N]
        won = drawn @ (by[:, : size + 1] * one.won_N[:, None])
        drawn *= one.weight_N
        most += open_B1 * (drawn @ (style * style))
        drawn *= chance  # what is expected of the won
        pulls.append(open_B1 * (won - drawn @ by[:, : size + 1]))
        chance *= drawn
        drawn -= chance
        bends.append(open_B1 * (drawn @ by))
    return np.stack(pulls, axis=1), np.stack(bends, axis=1), most.min(axis=1)


def _strength(value: np.float64, drawn: Floats) -> Strength:
    at_90, at_95 = (_bounds(float(value), drawn, level) for level in (90, 95))
    return Strength(float(value), at_90, at_95)


def _bounds(value: float, drawn: Floats, level: int) -> Bounds | None:
    """A draw that does not tell could be anything: it counts as lower than all below, and as higher than all above."""
    told = drawn[~np.isnan(drawn)]
    if not len(told) or told.min() == told.max():
        return None
    first, last = (math.ceil(len(drawn) * place / 1000) - 1 for place in _PLACES[level])
    low = np.sort(np.where(np.isnan(drawn), -np.inf, drawn))[first]
    high = np.sort(np.where(np.isnan(drawn), np.inf, drawn))[last]
    return min(float(low), value), max(float(high), value)
