"""What the answer to `POST /execute`, or its absence, means for the task and for the executor. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from queueworker.routing.http.transport import Answer, NotSent, TimedOut, TooLarge, TransportError
from queueworker.routing.limits import MIB
from queueworker.routing.wire.outcome import Outcome, Result, outcome_of, parse_result
from queueworker.routing.wire.reading import InvalidAnswer, excerpt


class Kind(Enum):
    """How an attempt failed, and whether the task may have run."""

    REFUSED = auto()
    """429 or 503: the task did not run, and the executor takes no task now."""
    REJECTED = auto()
    """Another status below 500: the task did not run, and is to blame."""
    FAULT = auto()
    """Another status from 500: the executor is to blame, and the task may have run."""
    INVALID = auto()
    """200 with something that is not a result: the executor is to blame, and the task has run."""
    TOO_LARGE = auto()
    """A result above the limit: nobody is to blame, and the task has run."""
    NOT_SENT = auto()
    """The executor never saw the request."""
    BROKEN = auto()
    """The connection broke after the request may have been seen."""
    TIMED_OUT = auto()
    """No answer in time."""


_DID_NOT_RUN = frozenset({Kind.REFUSED, Kind.REJECTED, Kind.NOT_SENT})
_ANSWER_LOST = frozenset({Kind.BROKEN, Kind.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Failure:
    """The attempt gave no result."""

    kind: Kind
    error: str
    """The task's error if this attempt was the last one. It names the executor, or has the legacy worker's words."""
    reason: str = ""
    """The executor's fault in words for status, without its name; empty when it is not to blame."""

    @property
    def ambiguous(self) -> bool:
        """Whether the task may have run."""
        return self.kind not in _DID_NOT_RUN

    @property
    def answer_lost(self) -> bool:
        """Whether the executor may have taken the task, and only its answer was lost."""
        return self.kind in _ANSWER_LOST


@dataclass(frozen=True, slots=True)
class Running:
    """An asynchronous executor has taken the task and will publish the outcome."""

    result: Result


Verdict = Outcome | Running | Failure


def classify(answer: Answer | TransportError, executor: str) -> Verdict:
    """The verdict on an attempt at that executor: how the task ended, that it runs, or how the attempt failed."""
    if isinstance(answer, TransportError):
        return _no_answer(answer, executor)
    if answer.status != 200:
        return _no_success(answer)
    try:
        result = parse_result(answer.body)
    except InvalidAnswer as error:
        return Failure(Kind.INVALID, f"executor {executor} {error}", str(error))
    return Running(result) if result.status == "running" else outcome_of(result)


def _no_success(answer: Answer) -> Failure:
    text = excerpt(answer.body)
    error = f"Executor rejected task: {text}"  # the legacy worker's words
    if answer.status in {429, 503}:
        return Failure(Kind.REFUSED, error)
    if answer.status >= 500:
        return Failure(Kind.FAULT, error, f"answered {answer.status}: {text}")
    return Failure(Kind.REJECTED, error)


def _no_answer(error: TransportError, executor: str) -> Failure:
    text = f"executor {executor}: {error}"
    match error:
        case TooLarge():
            return Failure(Kind.TOO_LARGE, f"executor {executor} {_too_large(error)}")
        case NotSent():
            return Failure(Kind.NOT_SENT, text, f"cannot be reached at {error}")
        case TimedOut():
            return Failure(Kind.TIMED_OUT, text, f"no answer in time at {error}")
    return Failure(Kind.BROKEN, text, f"broke the connection at {error}")


def _too_large(error: TooLarge) -> str:
    size = "more bytes" if error.size is None else f"{error.size:,} bytes, more"
    return f"answered with {size} than routing.maxBodyMebibytes allows ({error.limit / MIB:g} MiB)"
