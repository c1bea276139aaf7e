"""The control plane: kopf handlers, discovery, status and leader election."""
