"""The client before the compiler: what the native launcher leaves to Python, and subcommands.

Does not know the syncer's packages.
"""
