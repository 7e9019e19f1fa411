"""Worker side: sandboxes run a compiler on the mirrored files, at their own paths or relocated.

Knows no queue and no network.
"""
