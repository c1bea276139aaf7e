"""The command `queueworker`. A subcommand imports its dependencies when it runs: a worker never loads Kubernetes."""

# ruff: noqa: PLC0415 -- each subcommand loads only what it needs
from __future__ import annotations

import logging
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from queueworker import __version__
from queueworker.cli import failed as failed_cli
from queueworker.cli import healthcheck as healthcheck_cli
from queueworker.cli import selftest as selftest_cli
from queueworker.cli import uninstall as uninstall_cli
from queueworker.cli.usage import Group
from queueworker.processes.environment import InvalidEnvironment, load, load_web, strip_variables
from queueworker.processes.environment_table import VARIABLES
from queueworker.processes.logs import LogFormat, LogLevel, configure
from queueworker.processes.notes import ignored_proxies
from queueworker.processes.pod import own_namespace, runs_in_pod
from queueworker.processes.signals import exit_until_claimed
from queueworker.processes.streams import open_standard_streams, unwritable_output_explained
from queueworker.processes.tracing_settings import read_tracing

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from queueworker.controller.options import OperatorOptions

_T = TypeVar("_T")

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="""Routes tasks from a legacy HTTP queue to a pool of executors without losing any.

\b
In Kubernetes, one router for each QueueWorker object:
  queueworker crd | kubectl apply --server-side -f -
  queueworker operator
  queueworker uninstall
Without Kubernetes, one router for one queue:
  QUEUE_SERVICE_URL=http://queue:8081 EXECUTOR_COUNT=3 queueworker worker
Failed tasks:
  queueworker failed list
""",
)
app.add_typer(failed_cli.app, name="failed")


@app.callback(invoke_without_command=True)
def _root(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False
) -> None:
    strip_variables(os.environ)
    if version:
        print(__version__)
        raise typer.Exit


def _variables() -> str:
    rows = [f"  {v.name}{f' ({v.default})' if v.default else ''}\n      {v.may_be}" for v in VARIABLES]
    return "\n".join(rows)


_WORKER_HELP = f"""Route for one queue without Kubernetes, configured by environment variables.

If a variable cannot be used, the worker exits at once with status 2 and a line that names the variable.
SIGTERM drains the worker: running tasks have DRAIN_SECONDS to finish, and the next worker takes over the
rest. A second signal ends the worker at once.

\b
Examples:
  queueworker worker
  QUEUE_SERVICE_URL=http://localhost:8081 EXECUTOR_ENDPOINTS=http://localhost:8083 queueworker worker
  EXECUTOR_COUNT=3 EXECUTOR_CONCURRENCY=4 ROUTING_STRATEGY=LeastLoaded queueworker worker
  curl http://localhost:8084/status

\b
Variables, with their defaults and permitted values:
{_variables()}
"""


@app.command(help=_WORKER_HELP, short_help="Route for one queue without Kubernetes.")
def worker() -> None:
    exit_until_claimed()
    try:
        settings = load(os.environ)
    except InvalidEnvironment as error:
        print("\n".join(error.problems), file=sys.stderr)
        raise typer.Exit(2) from error
    configure(settings.process.log_level, settings.process.log_format)
    if sys.stderr.isatty() and settings.process.log_format is LogFormat.TEXT:
        from queueworker.processes.banner import banner

        print("\n".join(banner(settings, os.environ)), file=sys.stderr)
    from queueworker.processes.worker import run_worker

    _run(run_worker(settings))


_OPERATOR_HELP = """Route for the QueueWorker objects in Kubernetes.

The operator uses the service account of its pod, or the current context of KUBECONFIG. The replica that
holds the Lease routes, and the other replicas stand by. SIGTERM drains all routers; a second signal ends
the operator at once.

\b
Examples:
  queueworker operator
  queueworker operator --namespace team-a --namespace team-b
  KUBECONFIG=~/.kube/config queueworker operator --lease-namespace default --log-level debug
  curl http://localhost:8084/status
"""
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _namespaces(given: list[str] | None) -> list[str] | None:
    for name in given or ():
        _namespace(name)
    return given


def _namespace(given: str) -> str:
    if not _DNS_LABEL.fullmatch(given):
        raise typer.BadParameter(
            f"{given!r} is not a namespace: use at most 63 lower-case letters, digits and hyphens (repeat the option "
            "for several namespaces)"
        )
    return given


def _lease(given: str) -> str:
    if not _DNS_NAME.fullmatch(given):
        raise typer.BadParameter(
            f"{given!r} is not a name: use at most 253 lower-case letters, digits, hyphens and dots"
        )
    return given


def _own_namespace() -> str:
    """The namespace of the pod, from its service account; outside a cluster the namespace of the manifests."""
    return own_namespace() or "queueworker-system"


_Namespaces = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMESPACE", help="Watch this namespace; repeatable. Default: all namespaces.", callback=_namespaces
    ),
]
_LeaseName = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the Lease for leader election.", callback=_lease)
]
_LeaseNamespace = Annotated[
    str,
    typer.Option(
        metavar="NAMESPACE",
        help="Namespace of the Lease.",
        default_factory=_own_namespace,
        show_default="the pod's own, else queueworker-system",
        envvar="POD_NAMESPACE",
        callback=_namespace,
    ),
]


_MemoryBudget = Annotated[
    int | None,
    typer.Option(
        min=16,
        max=1024 * 1024,
        envvar="MEMORY_BUDGET_MEBIBYTES",
        help="What tasks, results and events of all QueueWorkers may take in memory; above it no new tasks are pulled. "
        "Default: half of the container's memory limit, or 512 without one.",
    ),
]


@app.command(help=_OPERATOR_HELP)
def operator(
    *,
    namespace: _Namespaces = None,
    lease_name: _LeaseName = "queueworker-operator",
    lease_namespace: _LeaseNamespace,
    managed_pools: Annotated[
        bool,
        typer.Option(
            "--managed-pools/--no-managed-pools",
            envvar="MANAGED_POOLS",
            help="Run pods for objects with spec.executors.template, which takes more rights.",
        ),
    ] = False,
    host: Annotated[str, typer.Option(help="Address that the HTTP API listens on.", show_default=":: (all)")] = "::",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port of the HTTP API; 0 takes any free port.")
    ] = 8084,
    log_level: Annotated[
        LogLevel, typer.Option(help="Lowest level that is logged.", case_sensitive=False)
    ] = LogLevel.INFO,
    log_format: Annotated[LogFormat, typer.Option(help="Format of a log line.")] = LogFormat.TEXT,
    memory_budget_mebibytes: _MemoryBudget = None,
) -> None:
    exit_until_claimed()
    configure(log_level, log_format)
    traced, refused = read_tracing(os.environ)
    for note in (*ignored_proxies(os.environ), *refused):
        logging.getLogger(__name__).warning(note)
    from queueworker.processes.operator import operate

    try:
        web = load_web(os.environ)
    except InvalidEnvironment as error:
        print("\n".join(error.problems), file=sys.stderr)
        raise typer.Exit(2) from error
    options = _operator_options(
        namespace, lease_name, lease_namespace, memory_budget_mebibytes, managed_pools=managed_pools
    )
    _run_in_cluster(operate(options, host, port, web, os.environ.get("POD_IP", ""), traced))


@app.command(help=uninstall_cli.HELP, short_help="Say what stands in the way of the operator's removal.")
def uninstall(
    *,
    namespace: _Namespaces = None,
    lease_name: _LeaseName = "queueworker-operator",
    lease_namespace: _LeaseNamespace,
    release: Annotated[
        bool, typer.Option("--release", help="Let all QueueWorkers go: remove the operator's finalizer from them.")
    ] = False,
) -> None:
    configure(LogLevel.WARNING, LogFormat.TEXT)
    options = _operator_options(namespace, lease_name, lease_namespace)
    raise typer.Exit(_run_in_cluster(uninstall_cli.uninstall(options, release=release)))


@app.command(help=healthcheck_cli.HELP, short_help="Say whether the process in this container is alive.")
def healthcheck(
    host: Annotated[str, typer.Option(help="Address of the HTTP API.", envvar="HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the HTTP API.", envvar="PORT")] = 8084,
) -> None:
    alive, said = healthcheck_cli.healthcheck(host, port)
    print(said)
    raise typer.Exit(0 if alive else 1)


@app.command(help=selftest_cli.HELP, hidden=True)
def selftest(
    *,
    namespace: Annotated[str, typer.Option(help="Namespace of the test's QueueWorker.", callback=_namespace)],
    host: Annotated[
        str, typer.Option(help="Address of this process, as the operator reaches it.", envvar="POD_IP")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the queue and the executor.")] = 8085,
    tasks: Annotated[int, typer.Option(min=1, max=1000, help="Tasks to route.")] = 20,
    redis_url: Annotated[str, typer.Option(help="Redis for journal and events. Default: none.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until all tasks have to be reported.")] = 120.0,
) -> None:
    configure(LogLevel.WARNING, LogFormat.TEXT)
    from queueworker.processes.selftest import NO_REDIS, SelfTestOptions

    options = SelfTestOptions(namespace, host, port, tasks, redis_url or NO_REDIS, timeout)
    raise typer.Exit(_run_in_cluster(selftest_cli.selftest(options)))


def _operator_options(
    namespaces: list[str] | None,
    lease_name: str,
    lease_namespace: str,
    memory_budget_mebibytes: int | None = None,
    *,
    managed_pools: bool = False,
) -> OperatorOptions:
    from queueworker.controller.options import OperatorOptions

    return OperatorOptions(
        namespaces=tuple(dict.fromkeys(namespaces or ())),
        lease_name=lease_name,
        lease_namespace=lease_namespace,
        in_pod=runs_in_pod(os.environ),
        memory_budget_mebibytes=memory_budget_mebibytes,
        managed_pools=managed_pools,
    )


def _run_in_cluster(work: Coroutine[Any, Any, _T]) -> _T:
    """As `_run`. Without access to a cluster, end the process with status 1 and a message."""
    from kubernetes.aio.config import ConfigException

    try:
        return _run(work)
    except ConfigException as error:
        print(
            f"no access to a Kubernetes API server: {error}; run in a pod, or set KUBECONFIG to a kubeconfig file",
            file=sys.stderr,
        )
        raise typer.Exit(1) from error


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition for kubectl."""
    from queueworker.resource.generate import crd_yaml

    print(crd_yaml(), end="")


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run in uvloop. CannotListen ends the process with status 1 and its message."""
    import asyncio

    import uvloop

    from queueworker.processes.runtime import prepare
    from queueworker.web.server import CannotListen

    prepare()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(work)
        except CannotListen as error:
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error


def main() -> None:
    open_standard_streams()
    with unwritable_output_explained():
        app()


if __name__ == "__main__":
    main()
