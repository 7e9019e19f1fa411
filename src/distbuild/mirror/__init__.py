"""The mirrored directories of the dev box, kept equal to its disk by file events.

Knows no worker and no job.
"""
