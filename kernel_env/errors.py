"""Errors that are not the candidate's doing.

A candidate's failure is data (`schema.Status`); everything below is an exception and never a score.

    KernelEnvError                 every error this project raises on purpose; `exit_code` is what the command line returns
    ├── ConfigError                the user's input: an unknown option, a missing file, a bad value      (2)
    │   └── DatasetError           a problem source that cannot be read, a malformed line                (2)
    ├── GateError                  a run ended, but its numbers must not be believed                     (3)
    │   ├── EmptyReplies           every reply was empty                                                 (9)
    │   ├── ThoughtOnly            every reply was cut off while it still was thinking                  (10)
    │   └── NoneCorrect            not one was correct: more likely a fault than a result               (11)
    ├── InfraError                 this machine or a service failed; the turn stays unscored             (4)
    │   ├── ProblemError           the problem's own code failed: nobody can be scored on it             (4)
    │   │   └── ReferenceEnded     its process died, or met its time limit                               (4)
    │   ├── BuilderError           the compiler itself is missing or was killed                          (4)
    │   ├── VerifierError          a referee, zygote or channel died                                     (4)
    │   ├── VerifierBusy           no slot became free within the queue limit                            (4)
    │   └── MachineBusy            other work on the cores: no time can be believed                      (4)
    ├── JudgeError                 a judge gave no score: its part of a reward is None                   (4)
    │   ├── JudgeUnreachable       nothing listens there, it never answers, or its model is down         (4)
    │   ├── JudgeRefused           it would not score this request                                       (4)
    │   ├── JudgeBadReply          an answer that does not follow the protocol                           (4)
    │   └── JudgeBusy              it was not asked: the queue is full, the circuit open, or all closed  (4)
    └── PolicyError                no reply could be had from the model                                  (5)
        ├── EndpointUnreachable    nothing listens there, or it never answers                            (6)
        ├── AuthenticationFailed   the endpoint refused the key                                          (7)
        ├── ModelNotFound          the endpoint has no model of that name                                (8)
        ├── RateLimited            still refused after every retry                                       (5)
        ├── BadReply               an answer that does not follow the protocol                           (5)
        └── PolicyExhausted        a recording has no further turn: the episode ends, nothing failed     (5)

Every error pickles, and its message is one line that says what, where and what to do.
"""

from __future__ import annotations


class KernelEnvError(Exception):
    """Base of every error raised on purpose. `exit_code` is the process's exit status when it reaches the command line."""

    exit_code = 1

    @property
    def kind(self) -> str:
        """Short snake_case name for records, e.g. `endpoint_unreachable`."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(("_" if c.isupper() and i else "") + c.lower() for i, c in enumerate(name))


class ConfigError(KernelEnvError):
    exit_code = 2


class DatasetError(ConfigError):
    pass


class GateError(KernelEnvError):
    exit_code = 3


class EmptyReplies(GateError):
    exit_code = 9


class ThoughtOnly(GateError):
    exit_code = 10


class NoneCorrect(GateError):
    exit_code = 11


class InfraError(KernelEnvError):
    exit_code = 4


class ProblemError(InfraError):
    pass


class ReferenceEnded(ProblemError):
    """Its process died, or met its time limit."""


class BuilderError(InfraError):
    pass


class VerifierError(InfraError):
    pass


class VerifierBusy(InfraError):
    pass


class MachineBusy(InfraError):
    pass


class JudgeError(KernelEnvError):
    exit_code = 4


class JudgeUnreachable(JudgeError):
    pass


class JudgeRefused(JudgeError):
    pass


class JudgeBadReply(JudgeError):
    pass


class JudgeBusy(JudgeError):
    pass


class PolicyError(KernelEnvError):
    exit_code = 5


class EndpointUnreachable(PolicyError):
    exit_code = 6


class AuthenticationFailed(PolicyError):
    exit_code = 7


class ModelNotFound(PolicyError):
    exit_code = 8


class RateLimited(PolicyError):
    pass


class BadReply(PolicyError):
    pass


class PolicyExhausted(PolicyError):
    pass
