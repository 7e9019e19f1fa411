"""Sends an empty worker what the first scan has found so far, before the scan is over."""

import os
from collections.abc import Callable

from distbuild.protocol import messages
from distbuild.push.bundles import BlobSource
from distbuild.push.sending import ContentSender
from distbuild.push.worker_client import WorkerClient


class Filler:
    """For one worker, from the thread that pushes to it. ``is_over`` says when to give up."""

    def __init__(
        self,
        client: WorkerClient,
        client_id: str,
        source: BlobSource,
        delivery: ContentSender,
        is_over: Callable[[], bool],
    ) -> None:
        self._client = client
        self._client_id = client_id
        self._source = source
        self._delivery = delivery
        self._is_over = is_over
        #: Whether the worker has a tree of ours: then there is nothing to do.
        self.has_tree = True
        #: Whether it is being filled.
        self.is_at_work = False
        # How much of the scan it was offered, and what it lacks of that and is sent with others of
        # a group.
        self._offered = 0
        self._waiting: list[messages.Digest] = []

    def fill(self) -> None:
        """Send what it lacks of what was found, if that is worth it by now. Raises
        InfrastructureError."""
        while not (self.has_tree or self._is_over()):
            if not self.is_at_work:
                self.is_at_work = True
                self._source.begin()
            found = self._source.ahead.after(self._offered)
            if found:
                entries = [messages.Change(os.fsencode(path), entry) for path, entry in found]
                self._waiting += self._client.lacking(
                    messages.Changes(self._client_id, "", 0, 0, b"", entries)
                )
                self._offered += len(found)
            ripe, self._waiting = self._source.ripe(self._waiting)
            if not (found or ripe):
                return
            self._delivery.send(ripe)

    def end(self) -> None:
        """It has the tree now, or is not to have it."""
        if self.is_at_work:
            self.is_at_work = False
            self._waiting = []
            self._source.end()
