"""The dev box's time zone, so that a worker's ``__DATE__`` and ``__TIME__`` are the dev box's."""

from pathlib import Path

LOCALTIME = Path("/etc/localtime")
UTC = "UTC0"


def local_zone(localtime: Path = LOCALTIME) -> str:
    """The zone as a value of TZ that needs no zone files where it is used.

    It is the last line of a version 2 zone file (RFC 8536, section 3.3): the rule that holds now,
    which is what a compiler's clock needs. UTC when there is none.
    """
    try:
        data = localtime.read_bytes()
    except OSError:
        return UTC
    footer = data.rstrip(b"\n").rpartition(b"\n")[2]
    if not data.startswith(b"TZif") or not data.endswith(b"\n") or not footer.isascii():
        return UTC
    return footer.decode() or UTC
