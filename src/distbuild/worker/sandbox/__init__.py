"""Sandboxes that show a compiler the mirrored files, at their own paths or relocated.

Knows no queue and no network.
"""
