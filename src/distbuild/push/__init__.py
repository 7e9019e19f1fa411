"""Syncer side: pushes the mirror to each worker, entries first, then the contents it lacks.

Knows no job.
"""
