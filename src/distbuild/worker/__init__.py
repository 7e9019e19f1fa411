"""The daemon: pulls jobs, compiles them in a sandbox that holds the mirror, returns the results."""
