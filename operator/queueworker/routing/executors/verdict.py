"""What the answer to `POST /execute`, or its absence, means for the task and for the executor. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from queueworker.routing.http.transport import Answer, NotSent, TimedOut, TooLarge, TransportError
from queueworker.routing.limits import MIB
from queueworker.routing.wire.outcome import Outcome, Result, outcome_of, parse_own_result
from queueworker.routing.wire.reading import InvalidAnswer, TooDeep, describe, excerpt, id_at_start


class Kind(Enum):
    """How an attempt failed, whether the task may have run, and who is to blame."""

    REFUSED = auto()
    """The task did not run; the executor takes no task now."""
    REJECTED = auto()
    """The task did not run, and is to blame: every executor would reject it."""
    UNSERVED = auto()
    """The task did not run, and the executor is to blame: it does not serve the call to us."""
    FAULT = auto()
    """The executor is to blame, and the task may have run."""
    TOO_LARGE = auto()
    """A result above a limit, of bytes or of nesting: the task has run, and the executor is not to blame."""
    NOT_SENT = auto()
    """The executor never saw the request."""
    BROKEN = auto()
    """The connection broke after the request may have been seen."""
    TIMED_OUT = auto()
    """No answer in time."""


# What every status but 200 means. A status that is not here is a FAULT: other 2xx, 5xx, and those 4xx whose meaning
# does not exclude that the task ran (408, 409, 424, and those that no standard defines).
_KINDS = {
    **dict.fromkeys((429, 503), Kind.REFUSED),
    **dict.fromkeys((400, 413, 422), Kind.REJECTED),
    # The server acted on nothing, and the reason is not in the task: the address, the way the request was made, or a
    # right that we lack. Another executor may serve it.
    **dict.fromkeys(range(300, 400), Kind.UNSERVED),
    **dict.fromkeys((401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 414, 415, 416, 417), Kind.UNSERVED),
    **dict.fromkeys((421, 425, 426, 428, 431, 451, 501), Kind.UNSERVED),
}
_DID_NOT_RUN = frozenset({Kind.REFUSED, Kind.REJECTED, Kind.UNSERVED, Kind.NOT_SENT})
_ANSWER_LOST = frozenset({Kind.BROKEN, Kind.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Failure:
    """The attempt gave no result."""

    kind: Kind
    error: str
    """The task's error if this attempt was the last one. It names the executor, or has the legacy worker's words."""
    reason: str = ""
    """The executor's fault in words for status, without its name and without the text of its answer; empty when it is
    not to blame.
    """

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


def classify(answer: Answer | TransportError, executor: str, eval_id: str) -> Verdict:
    """The verdict on an attempt at the task: how it ended, that it runs, or how the attempt failed.

    An answer that is no result of this task is somebody else's, or a broken executor's: the task may have run.
    """
    if isinstance(answer, TransportError):
        return _no_answer(answer, executor)
    if answer.status != 200:
        return _no_success(answer)
    try:
        result = parse_own_result(answer.body, eval_id)
    except InvalidAnswer as error:
        if isinstance(error, TooDeep) and id_at_start(answer.body) == eval_id:
            return Failure(Kind.TOO_LARGE, f"executor {executor} {error}")
        return Failure(
            Kind.FAULT,
            f"executor {executor} {error}",
            f"answered 200 without a result of the task ({describe(answer.body)})",
        )
    return Running(result) if result.status == "running" else outcome_of(result)


def _no_success(answer: Answer) -> Failure:
    kind = _KINDS.get(answer.status, Kind.FAULT)
    text = excerpt(answer.body)
    error = f"Executor rejected task: {text or f'status {answer.status}'}"  # the legacy worker's words
    blamed = kind in {Kind.FAULT, Kind.UNSERVED}
    return Failure(kind, error, f"answered {answer.status} ({describe(answer.body)})" if blamed else "")


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
