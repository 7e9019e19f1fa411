"""An HTTP server over TLS and Unix sockets, and an HTTP client with persistent connections.

Knows no message of the protocol: requests and responses are bytes.
"""
