"""The worker daemon on a build machine: leases jobs, compiles them in a sandbox, sends results.

Imports none of the syncer's packages.
"""
