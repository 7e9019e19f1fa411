"""Serves a WSGI app: over TLS and on a Unix socket. Knows nothing of what the app does."""
