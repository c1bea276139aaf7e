"""The template of the pods that the operator runs."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from queueworker.resource.model import Model

MAX_CONTAINERS = 64
_PRESERVE = "x-kubernetes-preserve-unknown-fields"


class PodTemplate(Model):
    """A template of pods. Only its containers are required here: the API server checks it within the StatefulSet."""

    metadata: dict[str, Any] = Field(
        {},
        description="Labels and annotations of the pods. Default: none but the operator's own.",
        json_schema_extra={_PRESERVE: True},
    )
    spec: dict[str, Any] = Field(
        description="Spec of the pods, as in a StatefulSet. The executor is the container that has a port with the "
        "name http, else the first one.",
        json_schema_extra={
            _PRESERVE: True,
            "required": ["containers"],
            "properties": {
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_CONTAINERS,
                    "description": "Containers of a pod, as in a StatefulSet.",
                    "items": {"type": "object", _PRESERVE: True, "description": "A container."},
                }
            },
        },
    )

    @model_validator(mode="after")
    def _has_containers(self) -> Self:
        containers = self.spec.get("containers")
        if not (isinstance(containers, list) and containers and all(isinstance(c, dict) for c in containers)):
            raise ValueError("spec.containers must have at least one container")
        return self
