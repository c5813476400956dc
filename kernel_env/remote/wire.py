"""What travels between a `RemoteVerifier` and a server, as JSON of the waist's codec.

    POST   /jobs               Job            -> 202 Accepted     to be verified; `id` makes it safe to send again
    POST   /jobs/batch         Batch          -> 202 AcceptedBatch
    GET    /jobs/{id}?wait_s=  -              -> 200 Answer, or 202 Accepted where it takes longer
    DELETE /jobs/{id}          -              -> 204              the candidate is killed, its slot free
    POST   /verify             Job            -> 200 Answer       submitted and waited for
    GET    /health             -              -> 200 Health
                                                 Failure          the body of every status from 400 on

An error of the verifier is a `Failure` with the error's `kind`, under a status from 500 on (422 for the user's own, `config`).
It is never a verdict, and `raised` makes the error of it again.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, TypeVar

from kernel_env import errors
from kernel_env.errors import ConfigError, InfraError, KernelEnvError, MachineBusy, VerifierBusy, VerifierError
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.schema import SCHEMA_VERSION, Candidate, Problem, Verdict, from_json, to_json
from kernel_env.verifier import Load

T = TypeVar("T")

PORT: Final = 18188
"""Where trainers that know KernelBench's kind of server look for it."""
API_KEY: Final = "KERNEL_ENV_API_KEY"
"""The environment variable that both ends take the key from, where it is not given."""
MAX_BODY_BYTES: Final = 16 << 20
MAX_WAIT_S: Final = 60.0
_ID = re.compile(r"[A-Za-z0-9._-]{1,200}")


class Refusal(StrEnum):
    """Kinds of failure beside those of errors."""

    INVALID = "invalid_request"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_JOB = "unknown_job"
    CONFLICT = "conflict"
    """Another job has this id."""
    CANCELLED = "cancelled"
    OVERLOADED = "overloaded"
    """The queue is full: try again after `Retry-After` seconds."""
    STOPPING = "stopping"
    """Nothing new is taken: try again elsewhere."""
    NEEDS_DEVICE = "needs_device"
    """Of `/eval`, which has no word for a candidate that cannot be scored."""


_STATUS = {
    Refusal.INVALID: 422,
    Refusal.UNAUTHORIZED: 401,
    Refusal.UNKNOWN_JOB: 404,
    Refusal.CONFLICT: 409,
    Refusal.CANCELLED: 410,
    Refusal.OVERLOADED: 429,
    Refusal.STOPPING: 503,
    Refusal.NEEDS_DEVICE: 501,
}


def new_id() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Job:
    """One candidate to verify."""

    problem: Problem
    candidate: Candidate
    config: VerifyConfig = field(default_factory=VerifyConfig)
    seed: int | None = None
    """None: the server draws one, which is in the verdict."""
    order: Order = ORDINARY
    id: str = field(default_factory=new_id)
    """Whoever sends the same id again asks for the same job: it runs once, or again where it had failed."""
    lease_s: float | None = None
    """It is given up once nobody has asked for its answer for so long. None: `/verify` gives it up with its connection, and `/jobs`
    never."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError("Job.id: 1 to 200 letters, digits, dots, dashes and underscores")
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise ValueError("Job.seed: a number from 0 to 2^63 - 1")
        if self.lease_s is not None and not 0 < self.lease_s < 1e9:
            raise ValueError("Job.lease_s: seconds, above 0")


@dataclass(frozen=True)
class Batch:
    """All are taken, or none."""

    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Accepted:
    id: str


@dataclass(frozen=True)
class AcceptedBatch:
    ids: tuple[str, ...]
    """In the order of the jobs."""


@dataclass(frozen=True)
class Answer:
    id: str
    verdict: Verdict


@dataclass(frozen=True)
class Failure:
    """Why there is no verdict."""

    kind: str
    message: str
    id: str | None = None
    """The job's, where it is about one."""


@dataclass(frozen=True)
class Health:
    status: str
    """`healthy`, or `draining`: nothing new is taken."""
    supported_backends: tuple[str, ...]
    slots: int
    """Verifications at a time."""
    unfinished: int
    """Jobs."""
    queue: int
    """Most of them."""
    load: Load
    schema_version: int = SCHEMA_VERSION


class NotJson(Exception):
    """What was sent is no JSON."""


class Malformed(Exception):
    """It is not what the protocol has there."""


def read(kind: type[T], text: bytes) -> T:
    """Raises NotJson, Malformed, and ConfigError for settings that cannot be."""
    try:
        document: Any = json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise NotJson("no JSON") from error
    try:
        return from_json(kind, document)
    except (ValueError, TypeError) as error:  # the second: a list where a word should be
        raise Malformed(str(error)) from error


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def write(value: Any) -> bytes:
    """ASCII: a candidate's text may hold what no encoding has."""
    return json.dumps(to_json(value), allow_nan=False).encode()


# ------------------------------------------------------------------ errors


def failure(error: KernelEnvError, job: str) -> Failure:
    return Failure(error.kind, str(error), job)


def status_of(kind: str) -> int:
    """Of the answer that says so."""
    if kind in set(Refusal):
        return _STATUS[Refusal(kind)]
    error = _ERRORS.get(kind, VerifierError)
    if issubclass(error, ConfigError):
        return 422
    return 503 if issubclass(error, MachineBusy | VerifierBusy) else 500


def raised(said: Failure, where: str) -> KernelEnvError:
    """The error that a server met, again. Of a kind that is not known here it is a VerifierError."""
    return _ERRORS.get(said.kind, VerifierError)(f"{where}: {said.message}")


def _below(kind: type[KernelEnvError]) -> list[type[KernelEnvError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _below(child))]


_ERRORS = {
    error("").kind: error for root in (ConfigError, InfraError) for error in _below(root) if error.__module__ == errors.__name__
}
