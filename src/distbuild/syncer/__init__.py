"""The syncer: job queue and include mirror of one developer."""
