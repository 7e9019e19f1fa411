"""The process on the dev box: takes commands from wrappers and has workers compile them.

Puts the packages mirror, push, farm and http together.
"""
