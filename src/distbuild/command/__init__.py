"""Model of compiler command lines: parses argv into values, and renders values back to argv.

Pure: reads no disk, clock or environment.
"""
