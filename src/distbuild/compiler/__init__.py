"""Which compiler a name means, and the identity by which two machines compare theirs.

Runs compilers to ask them about themselves. Knows no job.
"""
