"""The platform around the router, small and real: queue, executor, storage worker, load, local control plane."""
