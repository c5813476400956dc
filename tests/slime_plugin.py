"""Our functions as slime's contract tests call them: with next to nothing of what slime's command line and data set would say.

The tests are given these functions by name. What is added is what the environment variable says, and the first problem of the data
set where a sample names none.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace
from typing import Any

from rollout.adapters import slime

SETTINGS = "KERNEL_ENV_SLIME_SETTINGS"
"""JSON of the fields of `args`."""


def _told(args: Any) -> Any:
    stand_in = sys.modules.get("transformers")
    if stand_in is not None and getattr(stand_in, "__file__", None) is None:  # the contract has put an empty module there
        del sys.modules["transformers"]
    return SimpleNamespace(
        **json.loads(os.environ[SETTINGS]), **{name: getattr(args, name) for name in dir(args) if name[0] != "_"}
    )


def _of_a_problem(args: Any, sample: Any) -> Any:
    sample.metadata = slime.rows(*args.kernel_env)[0]["metadata"] | sample.metadata
    return sample


async def generate(args: Any, sample: Any, sampling_params: dict[str, Any]) -> Any:
    args = _told(args)
    full = {"top_p": 1.0, "max_new_tokens": 64, **sampling_params}
    return await slime.generate(args, _of_a_problem(args, sample), full)


async def reward(args: Any, sample: Any, **more: Any) -> Any:
    args = _told(args)
    return await slime.reward(args, _of_a_problem(args, sample), **more)


def advantages(args: Any, samples: Any) -> Any:
    return slime.advantages(_told(args), samples)
