"""How fresh the workers' own words are that a status shows. Knows no message."""

import time
from collections.abc import Iterable

from distbuild.push.pusher import Pusher


def refresh_all(pushers: Iterable[Pusher], max_age_s: float, within_s: float) -> None:
    """Have a status of every worker that is no older; one that hangs is waited for ``within_s``
    seconds in all."""
    deadline = time.monotonic() + within_s
    asked = list(pushers)
    for pusher in asked:
        pusher.refresh(max_age_s)
    for pusher in asked:
        pusher.wait_fresh(max_age_s, deadline - time.monotonic())
