"""The custom resource as plain data: spec and status models, and the CRD that is generated from them."""
