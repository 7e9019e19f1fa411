"""Wraps calls of the operating system that Python lacks or that differ between Linux and Windows.

Knows no message, no command and no mirror.
"""
