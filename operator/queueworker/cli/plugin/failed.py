"""`kubectl queueworker failed`: failed tasks by the name of their object; Redis and Secrets are found by themselves."""

# ruff: noqa: PLC0415 -- only these commands need Redis
from __future__ import annotations

import base64
import os
import shlex
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from queueworker.cli import failed as tasks
from queueworker.cli.failed_options import read_redis_url
from queueworker.cli.plugin.access import Access, OptionalName, object_names, run, with_access
from queueworker.cli.plugin.problems import Problem
from queueworker.cli.usage import Group
from queueworker.resource.urls import in_namespace

if TYPE_CHECKING:
    from queueworker.cli.plugin.api import Api
    from queueworker.resource.spec import SecretKeyRef

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""List failed tasks, and send them to their queue again.

\b
Examples:
  kubectl queueworker failed list legacy
  kubectl queueworker failed show legacy task-17
  kubectl queueworker failed retry legacy task-17 task-18
  kubectl queueworker failed retry legacy --all

These commands connect to the object's Redis, and `retry` to its queue. Where neither can be reached from here, forward
a port, or run the command in a pod of the operator; the error says how.
""",
    short_help="List failed tasks, and send them again.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The QueueWorker.", autocompletion=object_names)]
RedisURL = Annotated[
    str,
    typer.Option(
        metavar="URL", callback=read_redis_url, help="Redis, for example behind a port-forward. Default: the object's."
    ),
]


def list_(
    access: Access,
    name: OptionalName = None,
    *,
    redis_url: RedisURL = "",
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of tasks; the newest are shown.")] = 50,
    output: Annotated[tasks.Output, typer.Option("--output", "-o")] = tasks.Output.TABLE,
) -> None:
    """List failed tasks, newest first."""
    place, _ = run(_place(access, name, redis_url, "list"))
    tasks.list_tasks(place, limit, output)


def show(
    access: Access,
    name: Name,
    eval_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    redis_url: RedisURL = "",
    output: Annotated[tasks.ShowOutput, typer.Option("--output", "-o")] = tasks.ShowOutput.TEXT,
) -> None:
    """Show one failed task. It has the whole error, and the task as the queue handed it out."""
    place, _ = run(_place(access, name, redis_url, f"show {shlex.quote(eval_id)}"))
    tasks.show_task(place, eval_id, output)


def retry(
    access: Access,
    name: Name,
    eval_ids: Annotated[list[str] | None, typer.Argument(metavar="ID…", show_default=False)] = None,
    *,
    all_: Annotated[bool, typer.Option("--all", help="Send all failed tasks of the object, oldest first.")] = False,
    ambiguous: Annotated[
        bool, typer.Option("--ambiguous", help="Also send tasks that may have run already; they may run twice.")
    ] = False,
    redis_url: RedisURL = "",
    queue_url: Annotated[
        str, typer.Option(metavar="URL", help="Send to this queue, for example behind a port-forward.")
    ] = "",
    output: Annotated[tasks.ShowOutput, typer.Option("--output", "-o")] = tasks.ShowOutput.TEXT,
) -> None:
    """Send failed tasks to their queue again, with the API key of the object. Exit status 1 if one was not sent."""
    if bool(eval_ids) == all_:
        raise typer.BadParameter("give one or more IDs, or --all")
    again = f"retry {shlex.join(eval_ids or ['--all'])}{' --ambiguous' if ambiguous else ''}"
    place, key = run(_place(access, name, redis_url, again, with_key=True))
    as_json = output is tasks.ShowOutput.JSON
    tasks.send_again(place, eval_ids, key, queue_url or None, ambiguous=ambiguous, as_json=as_json)


for _command, _name in ((list_, "list"), (show, "show"), (retry, "retry")):
    app.command(_name)(with_access(_command))


class _Secrets:
    """Reads Secrets with the rights of the person."""

    def __init__(self, api: Api) -> None:
        from queueworker.processes.pod import runs_in_pod

        self._api = api
        self.in_pod = runs_in_pod(os.environ)

    async def secret(self, namespace: str, ref: SecretKeyRef) -> str:
        """Raises Problem if it does not exist or may not be read."""
        found = await self._api.find(f"/api/v1/namespaces/{namespace}/secrets/{ref.name}")
        value = ((found or {}).get("data") or {}).get(ref.key)
        if value is None:
            raise Problem(
                f"the Secret {namespace}/{ref.name} has no key {ref.key}: create it, or correct the reference"
            )
        return base64.b64decode(value).decode("utf-8", "replace").strip()


async def _place(
    access: Access, name: str | None, redis_url: str, verb: str, *, with_key: bool = False
) -> tuple[tasks.Place, str | None]:
    """Where the object's failed tasks are, and the API key of its queue, if that is asked for."""
    from pydantic import ValidationError

    from queueworker.cli.plugin import objects
    from queueworker.cli.plugin.api import Api
    from queueworker.controller.inputs import redis_url as redis_url_of
    from queueworker.resource.redis_url import InvalidRedisUrl
    from queueworker.resource.spec import QueueWorkerSpec

    async with Api(access) as api:
        body = await objects.the_only_one(api, name)
        namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
        secrets = _Secrets(api)
        try:
            url = redis_url or await redis_url_of(secrets, namespace, body)
            spec = QueueWorkerSpec.model_validate(body.get("spec") or {}, extra="ignore")
        except (InvalidRedisUrl, ValidationError) as error:
            why = str(error) if isinstance(error, InvalidRedisUrl) else "its spec is invalid"
            raise Problem(
                f"{namespace}/{name}: {why}; see `kubectl queueworker check {name} -n {namespace}`"
            ) from error
        ref = spec.queue.api_key_secret_ref
        key = await secrets.secret(namespace, ref) if with_key and ref is not None else None
        advice = unreachable_advice(url, namespace, name, verb, given=bool(redis_url))
        return tasks.Place(url, f"{namespace}/{name}", advice, certain=True), key


def unreachable_advice(url: str, namespace: str, name: str, verb: str, *, given: bool) -> str:
    """What to do if the Redis of an object cannot be reached from here."""
    if given:
        return "check --redis-url"
    from queueworker.cli.plugin.live import DEFAULT_OPERATOR

    system, _, deployment = DEFAULT_OPERATOR.partition("/")
    port = urlsplit(url).port or 6379
    command, _, rest = verb.partition(" ")
    words = " ".join(word for word in (command, name, rest, f"-n {namespace}") if word)
    inside = f"`kubectl exec -n {system} deploy/{deployment} -- kubectl-queueworker failed {words}`"
    service = _service(url, namespace)
    if service is None:
        return f"if it cannot be reached from here: {inside}"
    where, service_name = service
    forward = f"`kubectl port-forward -n {where} svc/{service_name} {port}` and --redis-url redis://127.0.0.1:{port}"
    return f"if it cannot be reached from here: {forward}, or {inside}"


def _service(url: str, namespace: str) -> tuple[str, str] | None:
    """Namespace and name of the Service that a pod in the namespace means by the URL; None if it is no Service."""
    name, *rest = (urlsplit(in_namespace(url, namespace)).hostname or "").split(".")
    return (rest[0], name) if rest[1:2] == ["svc"] else None
