"""The data plane. It knows no Kubernetes and no web framework."""
