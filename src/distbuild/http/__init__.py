"""An HTTP server over TLS and Unix sockets, and an HTTPS client with keep-alive connections.

Knows no message of the protocol: requests and responses are bytes.
"""
