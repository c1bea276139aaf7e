"""`kubectl queueworker`: a plugin of kubectl. The script is `kubectl-queueworker`, which also runs by itself."""

# ruff: noqa: PLC0415 -- a command loads only what it needs
from __future__ import annotations

import re
import sys
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from queueworker import __version__
from queueworker.cli.plugin import failed as failed_cli
from queueworker.cli.plugin.access import Access, OptionalName, run, with_access
from queueworker.cli.usage import Group
from queueworker.processes.streams import open_standard_streams, unwritable_output_explained
from queueworker.words import harmless

if TYPE_CHECKING:
    from queueworker.cli.plugin.actions import Done
    from queueworker.cli.plugin.values import View

PROG = "kubectl queueworker"
MAX_WAIT_SECONDS = 86_400
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}

app = typer.Typer(
    cls=Group,
    name=PROG,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="""Look after QueueWorker objects.

\b
Examples:
  kubectl queueworker status legacy
  kubectl queueworker status legacy --wait Ready --timeout 60s
  kubectl queueworker top -A
  kubectl queueworker check legacy --short
  kubectl queueworker drain executor-2 legacy
  kubectl queueworker failed list legacy
""",
)


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


Format = Annotated[Output, typer.Option("--output", "-o", help="json has all that the text has.")]


@app.callback(invoke_without_command=True)
def _root(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def _span(given: str) -> float:
    """Seconds of 90, 90s, 5m or 1h."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh]?)", given)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if found is None or seconds > MAX_WAIT_SECONDS:
        raise typer.BadParameter(f"{given!r} is no time of at most 24h: give for example 60s, 5m or 1h")
    return seconds


def status(
    access: Access,
    name: OptionalName = None,
    *,
    wait: Annotated[
        str, typer.Option(metavar="CONDITION", help="Return when the condition is True, or CONDITION=REASON holds.")
    ] = "",
    timeout: Annotated[str, typer.Option(metavar="TIME", help="With --wait: the longest wait, such as 60s.")] = "60s",
    output: Format = Output.TEXT,
) -> None:
    """Show one QueueWorker on one screen. It says what is wrong, and has rates, queue, journal and each executor."""
    from queueworker.cli.plugin import status as reading

    views = [run(reading.wait(access, name, wait, _span(timeout)))] if wait else run(reading.status(access, name))
    if output is Output.JSON:
        found = [view.as_json() for view in views]
        print_json(found if access.all_namespaces else found[0])
    else:
        _show(views)


def _show(views: list[View]) -> None:
    from queueworker.cli.plugin import screen
    from queueworker.cli.plugin.status_screen import status_lines

    glyphs, size = screen.here()
    for i, view in enumerate(views):
        screen.show([*([[("", "")]] if i else []), *status_lines(view, size, glyphs)])


def print_json(data: object) -> None:
    import orjson

    print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def suspend(access: Access, name: OptionalName = None, *, output: Format = Output.TEXT) -> None:
    """Stop pulling tasks (spec.suspend); running tasks end."""
    from queueworker.cli.plugin import actions

    _say(run(actions.suspend(access, name, on=True)), output)


def resume(access: Access, name: OptionalName = None, *, output: Format = Output.TEXT) -> None:
    """Pull tasks again after `suspend`."""
    from queueworker.cli.plugin import actions

    _say(run(actions.suspend(access, name, on=False)), output)


Executor = Annotated[str, typer.Argument(metavar="EXECUTOR", help="Name of the executor, as `status` shows it.")]


def drain(
    access: Access,
    executor: Executor,
    name: OptionalName = None,
    *,
    undo: Annotated[bool, typer.Option("--undo", help="Give it tasks again, as `undrain`.")] = False,
    output: Format = Output.TEXT,
) -> None:
    """Give an executor no more tasks. Those that it runs end (spec.executors.drained)."""
    from queueworker.cli.plugin import actions

    _say(run(actions.drain(access, executor, name, undo=undo)), output)


def undrain(access: Access, executor: Executor, name: OptionalName = None, *, output: Format = Output.TEXT) -> None:
    """Give a drained executor tasks again."""
    drain(access, executor, name, undo=True, output=output)


def check(
    access: Access,
    name: OptionalName = None,
    *,
    short: Annotated[bool, typer.Option("--short", help="Show errors and warnings only.")] = False,
    output: Format = Output.TEXT,
) -> None:
    """Find what keeps a QueueWorker from working, and say what to do. The exit status is 1 if there are errors."""
    from queueworker.cli.plugin import screen
    from queueworker.cli.plugin.check_screen import check_lines
    from queueworker.cli.plugin.checks import check as reading
    from queueworker.cli.plugin.findings import counts

    found = run(reading(access, name))
    errors, warnings, total = counts(found)
    if output is Output.JSON:
        findings = [asdict(finding) for finding in found]
        print_json({"errors": errors, "warnings": warnings, "checks": total, "findings": findings})
    else:
        glyphs, size = screen.here()
        screen.show(check_lines(found, size, glyphs, short=short))
    if errors:
        raise typer.Exit(1)


def top(access: Access, *, output: Format = Output.TEXT) -> None:
    """Watch all QueueWorkers, worst first. On a pipe, or with -o json, they are printed once."""
    from queueworker.cli.plugin import screen
    from queueworker.cli.plugin import top as watching
    from queueworker.cli.plugin.top_screen import TopState, top_lines

    if output is Output.TEXT and sys.stdout.isatty():
        print(run(watching.top(access)))
        return
    views = run(watching.once(access))
    if output is Output.JSON:
        print_json([view.as_json() for view in views])
        return
    glyphs, size = screen.here()
    screen.show(top_lines(views, TopState(selected=-2), size, glyphs)[:-1])


def web(
    access: Access,
    *,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
) -> None:
    """Open the operator's page in a browser. A port of this machine is forwarded to it until Ctrl-C."""
    from queueworker.cli.plugin import web as forwarding
    from queueworker.cli.plugin.problems import Problem

    try:
        forwarding.web(access, browser=browser)
    except KeyboardInterrupt:
        return
    except Problem as problem:
        print(f"error: {problem}", file=sys.stderr)
        raise typer.Exit(1) from problem


def _say(done: Done, output: Output) -> None:
    if output is Output.JSON:
        print_json(asdict(done))
        return
    print(harmless(f"{done.namespace}/{done.name}: {done.message}"))
    if done.note:
        print(f"note: {done.note}", file=sys.stderr)


app.add_typer(failed_cli.app, name="failed")
app.command()(with_access(status, everywhere=True))
app.command()(with_access(top, everywhere=True))
app.command()(with_access(check, everywhere=True))
for verb in (suspend, resume, drain, undrain, web):
    app.command()(with_access(verb))


def main() -> None:
    open_standard_streams()
    with unwritable_output_explained():
        app(prog_name=PROG)


if __name__ == "__main__":
    main()
