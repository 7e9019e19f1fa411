"""A live manifest of the dev box's directories that are mirrored, updated by file events.

Knows no worker and no job.
"""
