"""Benchmarks: what a compile costs, beside the other tools that are installed here."""
