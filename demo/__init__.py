"""The platform around the router, small and real: queue, executor, storage worker, load, and the local control plane."""
