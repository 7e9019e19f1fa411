"""The messages between wrapper, syncer and worker, and their encoding.

Imports no other package of this project.
"""
