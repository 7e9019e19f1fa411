"""The include mirror: what the dev box holds, how it is kept fresh, how a worker stores it."""
