"""Windows' rules for paths and names, and its calls for processes and files.

``process`` can be imported only on Windows; ``paths`` and ``names`` are pure.
"""
