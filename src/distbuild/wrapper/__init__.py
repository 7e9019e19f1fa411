"""Dev box side: the Python client behind the native launcher, put before the compiler; subcommands.

Knows none of the syncer's packages.
"""
