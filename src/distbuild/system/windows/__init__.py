"""Windows: paths, names, processes and files.

Imported only on Windows, but for the pure modules ``paths`` and ``names``.
"""
