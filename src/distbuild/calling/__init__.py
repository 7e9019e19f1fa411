"""Asks servers of this installation, over connections that are kept. Knows no message."""
