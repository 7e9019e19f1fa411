"""Finds the compiler behind a name, and computes the identity that two machines compare.

Runs compilers to query them. Knows no job.
"""
