"""The wrapper: stands in front of the compiler, once per compile."""
