"""The options that every command of the plugin has, as kubectl's users expect them."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from queueworker.cli.plugin.problems import Problem
from queueworker.words import harmless

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Access:
    """The options that every command has, as kubectl's."""

    namespace: str = ""
    all_namespaces: bool = False
    context: str = ""
    kubeconfig: str = ""
    operator: str = ""
    """Where the operator's HTTP API is: namespace/service, or a URL; empty: the Service of the manifests."""


def _options(
    *,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Namespace. Default: the context's.")
    ] = "",
    context: Annotated[str, typer.Option(metavar="NAME", help="Context of the kubeconfig.")] = "",
    kubeconfig: Annotated[str, typer.Option(metavar="PATH", help="Kubeconfig file. Default: as for kubectl.")] = "",
    operator: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            envvar="QUEUEWORKER_OPERATOR",
            help="The operator's HTTP API: NAMESPACE/SERVICE, or a URL, for example of a port-forward. "
            "Default: queueworker-system/queueworker-operator.",
        ),
    ] = "",
) -> None:
    """Declares the options; never called."""


def _all(
    *,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="The objects of all namespaces.")
    ] = False,
) -> None:
    """Declares the option; never called."""


def with_access(function: Callable[..., Any], *, everywhere: bool = False) -> Callable[..., Any]:
    """The function as a command: its first argument, an Access, is made from the options above.

    `everywhere`: the command has --all-namespaces as well.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    declared = [*(_parameters(_all) if everywhere else ()), *_parameters(_options)]

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        access = Access(**{option.name: given.pop(option.name) for option in declared})
        if access.all_namespaces and (given.get("name") or given.get("wait")):
            raise typer.BadParameter("--all-namespaces is about all objects: give it without NAME and without --wait")
        return function(access, **given)

    shown = [*own, *declared]
    command.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in shown}
    del command.__wrapped__
    return command


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(function, eval_str=True).parameters.values())


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run it. A Problem ends the command with status 1 and its message; Ctrl-C with status 130."""
    try:
        return asyncio.run(work)
    except Problem as problem:
        print(harmless(f"error: {problem}"), file=sys.stderr)
        raise typer.Exit(1) from problem
    except KeyboardInterrupt as interrupt:
        raise typer.Exit(130) from interrupt


def object_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Completion: the names of the namespace's objects; none if they cannot be read."""
    from queueworker.cli.plugin import objects  # noqa: PLC0415 -- only completion needs both
    from queueworker.cli.plugin.api import Api  # noqa: PLC0415 -- likewise

    given = ctx.params
    access = Access(given.get("namespace") or "", False, given.get("context") or "", given.get("kubeconfig") or "")

    async def names() -> list[str]:
        async with Api(access) as api:
            return [body["metadata"]["name"] for body in await objects.some(api, everywhere=False)]

    try:
        return [name for name in asyncio.run(names()) if name.startswith(incomplete)]
    except Problem:
        return []


OptionalName = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME",
        show_default=False,
        help="The QueueWorker; optional if there is one.",
        autocompletion=object_names,
    ),
]
