"""A numpy of the far future, for tests: it has a version and nothing else."""

__version__ = "99.0.0"
