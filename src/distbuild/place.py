"""Whether two processes of this machine mean the same files by the same paths."""

import os


def view_of_files() -> bytes:
    """This process's mount namespace and root directory, as one word; empty where unknown.

    The launcher has the same rule (``dist_build.c``). In a container or a chroot the paths of a
    command may lead to other files than the syncer's.
    """
    try:
        root = os.stat("/")
        return f"{os.readlink('/proc/self/ns/mnt')} {root.st_dev}:{root.st_ino}".encode()
    except OSError:
        return b""
