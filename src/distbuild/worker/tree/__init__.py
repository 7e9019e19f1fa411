"""The worker's copy of a mirror: a content store, and a directory tree for each client.

Knows no compiler.
"""
