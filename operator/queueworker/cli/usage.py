"""Errors of usage in our own words: typer would quote the library that validates an option's value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_TEXTS = {
    "int_parsing": "{input!r} is not a whole number",
    "int_from_float": "{input!r} is not a whole number",
    "float_parsing": "{input!r} is not a number",
    "bool_parsing": "{input!r} is neither true nor false",
    "greater_than_equal": "{input} is too small: it must be at least {ge}",
    "less_than_equal": "{input} is too large: it must be at most {le}",
}


class Group(TyperGroup):
    """A group of commands that says in plain words what is wrong with an option."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = plain(error)
            raise


def plain(error: typer.BadParameter) -> str:
    """The error's message; one of the validating library is replaced."""
    found = getattr(error.__cause__, "errors", None)
    return _plain(found()[0]) if callable(found) else error.message


def _plain(details: ErrorDetails) -> str:
    if details["type"] == "value_error":  # typer's own, such as "'a' is not one of 'b', 'c'"
        return str((details.get("ctx") or {}).get("error") or details["msg"].removeprefix("Value error, "))
    text = _TEXTS.get(details["type"], "{input!r} cannot be used")
    return text.format(input=details["input"], **(details.get("ctx") or {}))
