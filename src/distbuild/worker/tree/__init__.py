"""The worker's copy of the mirrors: a content store, and a directory tree for each client.

Knows no compiler.
"""
