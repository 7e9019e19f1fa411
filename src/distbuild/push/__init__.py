"""Sends the mirror to the workers: for each one, entries first, then the contents it lacks.

Knows no job.
"""
