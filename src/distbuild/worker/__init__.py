"""The process on a build machine: leases jobs, compiles them in a sandbox, sends the results.

Does not know the syncer's packages.
"""
