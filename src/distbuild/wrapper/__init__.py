"""Dev box side: runs a compile on the farm or locally, behind the native launcher; subcommands.

Knows none of the syncer's packages.
"""
