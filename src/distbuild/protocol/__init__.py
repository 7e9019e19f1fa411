"""The words that the processes speak with each other. Imports nothing of ours."""
