"""Worker side: starts compilers and waits for their end, with limits on time and output."""
