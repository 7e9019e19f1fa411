"""The syncer process on the dev box: accepts commands from wrappers and has workers compile them.

Combines the packages mirror, push, farm and http.
"""
