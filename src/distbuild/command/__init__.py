"""The command-line model: argv in, values out.

Pure: reads no disk, clock or environment.
"""
