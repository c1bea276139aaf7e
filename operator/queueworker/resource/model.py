"""The base of all models of the resource, and the words that they have for the API server."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from queueworker.resource.urls import CEL

INT_OR_STRING = "x-kubernetes-int-or-string"


class Model(BaseModel):
    """camelCase in JSON, snake_case in Python. Unknown fields are refused, and values are immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")


def rule(cel: str, message: str) -> dict[str, Any]:
    """A CEL rule for the API server, with the message for the user."""
    return {CEL: [{"rule": cel, "message": message}]}
