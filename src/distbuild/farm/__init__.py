"""The job queue: jobs wait until a worker leases them, and come back with a result.

Knows no mirror and no HTTP.
"""
