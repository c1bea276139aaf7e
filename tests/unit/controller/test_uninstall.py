"""Before the operator is removed: what it holds is named, or released."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from queueworker.controller.cluster import Cluster, StalePatch
from queueworker.controller.kinds import Kind
from queueworker.controller.uninstall import HOLDER, ListRefused, held, release
from queueworker.resource.names import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Sequence


def body(name: str, *finalizers: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": name, "uid": name, "finalizers": list(finalizers)}}


class Api(Cluster):
    def __init__(self, *bodies: dict[str, Any], lease: bool = True) -> None:
        super().__init__(lambda: None)
        self.bodies = list(bodies)
        self.lease: Any = None
        self.conflicts = 0
        self.stale = 0
        self.adds_again: list[str] = []
        """Objects that an operator, which has not noticed yet, sets the finalizer of once more."""
        if lease:
            self.lease = client.V1Lease(
                metadata=client.V1ObjectMeta(name="lease"), spec=client.V1LeaseSpec(holder_identity="leader")
            )

    async def list_all(self, kind: Kind, namespace: str) -> list[dict[str, Any]]:
        if namespace == "gone":  # its Role went with it
            raise ApiException(status=403, reason="Forbidden")
        return [b for b in self.bodies if namespace in {"", b["metadata"]["namespace"]}]

    async def patch_object(
        self, namespace: str, name: str, patch: Sequence[dict[str, Any]] | dict[str, Any]
    ) -> dict[str, Any]:
        if self.stale:
            self.stale -= 1
            raise StalePatch(name)
        (found,) = [b for b in self.bodies if b["metadata"]["name"] == name]
        if name in self.adds_again:
            self.adds_again.remove(name)
        else:
            found["metadata"]["finalizers"].remove(FINALIZER)
        return found

    async def read_lease(self, namespace: str, name: str) -> Any:
        return self.lease

    async def write_lease(self, namespace: str, lease: Any, *, create: bool) -> Any:
        assert not create
        if self.conflicts:
            self.conflicts -= 1
            raise ApiException(status=409)
        return lease


class Missing(Api):
    async def list_all(self, kind: Kind, namespace: str) -> list[dict[str, Any]]:
        raise ApiException(status=404)


async def test_objects_with_our_finalizer_are_named() -> None:
    api = Api(body("a", FINALIZER), body("b", "other"), body("c"))
    assert [b["metadata"]["name"] for b in await held(api, ())] == ["a"]
    assert await held(api, ("elsewhere",)) == []
    assert await held(Missing(), ()) == [], "without a CRD there are no objects"


async def test_a_release_takes_the_lease_first_and_leaves_the_finalizers_of_others() -> None:
    api = Api(body("a", "other", FINALIZER), body("b", FINALIZER))
    api.conflicts, api.stale, api.adds_again = 1, 1, ["b"]
    assert await release(api, (), "system", "lease", notice=0, settle=0) == []
    assert api.lease.spec.holder_identity == HOLDER
    assert [b["metadata"]["finalizers"] for b in api.bodies] == [["other"], []]


async def test_a_release_needs_no_operator() -> None:
    api = Api(body("a", FINALIZER), lease=False)
    assert await release(api, (), "system", "lease", notice=0, settle=0) == []


async def test_what_cannot_be_released_is_named() -> None:
    api = Api(body("a", FINALIZER))
    api.stale = 1000
    left = await release(api, (), "system", "lease", notice=0, settle=0)
    assert [b["metadata"]["name"] for b in left] == ["a"]


async def test_a_namespace_that_may_not_be_asked_about_is_named_with_the_way_out() -> None:
    with pytest.raises(ListRefused, match=r"in the namespace gone: .*take it out of watchNamespaces"):
        await held(Api(), ("team", "gone"))
