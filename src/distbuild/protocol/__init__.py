"""Messages between wrapper, syncer and worker, and how they are encoded.

Imports no other package of ours.
"""
