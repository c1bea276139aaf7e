"""What changes an object: suspend, resume, drain and undrain. Each is a field of the spec, so that GitOps sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from queueworker.cli.plugin import objects
from queueworker.cli.plugin.api import MANAGER, Api
from queueworker.cli.plugin.problems import Problem

if TYPE_CHECKING:
    from queueworker.cli.plugin.access import Access

MAX_NAMED = 10


@dataclass(frozen=True, slots=True)
class Done:
    """What a command has changed. `field` has the value `value` now; `note` says who may set it back."""

    namespace: str
    name: str
    changed: bool
    message: str
    field: str
    value: Any
    note: str = ""


async def suspend(access: Access, name: str | None, *, on: bool) -> Done:
    """Set spec.suspend. Raises Problem."""
    async with Api(access) as api:
        body = await objects.the_only_one(api, name)
        now = bool((body.get("spec") or {}).get("suspend"))
        if now is on:
            return _done(
                body, f"is {'suspended already' if on else 'not suspended'}", "spec.suspend", on, changed=False
            )
        body = await objects.change(api, body, {"suspend": on})
        said = "suspended: running tasks end, no tasks are pulled" if on else "resumed"
        return _done(body, said, "spec.suspend", on)


async def drain(access: Access, executor: str, name: str | None, *, undo: bool) -> Done:
    """Add the executor to spec.executors.drained, or remove it. Raises Problem."""
    async with Api(access) as api:
        body = await objects.the_only_one(api, name)
        drained = list(((body.get("spec") or {}).get("executors") or {}).get("drained") or [])
        field = "spec.executors.drained"
        if (executor in drained) is not undo:
            return _done(
                body, f"{executor} is {'not drained' if undo else 'drained already'}", field, drained, changed=False
            )
        _check_executor(body, executor, undo=undo)
        changed = [e for e in drained if e != executor] if undo else [*drained, executor]
        body = await objects.change(api, body, {"executors": {"drained": changed}})
        said = f"{executor} gets tasks again" if undo else f"{executor} finishes its tasks and gets no more"
        return _done(body, said, field, changed)


def _check_executor(body: dict[str, Any], executor: str, *, undo: bool) -> None:
    status = body.get("status") or {}
    known = [e["name"] for e in (status.get("executors") or {}).get("endpoints") or []]
    if undo or executor in known or int((status.get("executors") or {}).get("desired") or 0) > len(known):
        return
    listed = ", ".join([*known[:MAX_NAMED], *(["..."] if len(known) > MAX_NAMED else [])]) or "none"
    raise Problem(f"{body['metadata']['name']} has no executor {executor}; it has: {listed}")


def _done(body: dict[str, Any], message: str, field: str, value: Any, *, changed: bool = True) -> Done:
    metadata = body["metadata"]
    note = owner_note(metadata, field) if changed else ""
    return Done(metadata["namespace"], metadata["name"], changed, message, field, value, note)


def owner_note(metadata: dict[str, Any], field: str) -> str:
    """A warning if the object is applied by a tool that may set the field back."""
    others = [
        str(entry.get("manager"))
        for entry in metadata.get("managedFields") or []
        if entry.get("operation") == "Apply"
        and entry.get("manager") not in {MANAGER, None}
        and not entry.get("subresource")
    ]
    if not others:
        return ""
    return f"{others[0]} applies this object: set {field} in its source too, or it may be set back"
