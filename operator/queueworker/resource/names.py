"""Names of the resource."""

GROUP = "crucible.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "QueueWorker"
PLURAL = "queueworkers"
SINGULAR = "queueworker"
SHORT_NAME = "qw"
CATEGORY = "crucible"
FINALIZER = f"{GROUP}/drain"
LABEL_QUEUEWORKER = f"{GROUP}/queueworker"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
ANNOTATION_TEMPLATE_HASH = f"{GROUP}/template-hash"
ANNOTATION_UPDATE_AWAITS = f"{GROUP}/update-awaits"
"""Of a pool's StatefulSet: how many pods have to be ready before its update takes another one away."""
FIELD_MANAGER = "queueworker-operator"


def pool_name(name: str) -> str:
    """Name of the Service, StatefulSet and PodDisruptionBudget of a QueueWorker's own pods."""
    return f"{name}-executor"
