"""The platform around the router, as small real services: queue, executor, storage worker, gateway, load generator."""
