"""Benchmarks: what the engine is worth beside its peers and the limits of the machine, measured in the same run."""
