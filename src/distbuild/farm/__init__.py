"""Syncer side: the queue of compile jobs, which workers lease, and the checks on their results.

Knows no mirror and no HTTP.
"""
