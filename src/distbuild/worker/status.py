"""What GET /status says about a worker. Read only; no source text, no tokens."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from distbuild.protocol.messages import to_plain
from distbuild.worker.agent import Workshop


class Confined(msgspec.Struct, frozen=True):
    """How compilers are confined: ``mode`` is namespace or plain, ``why`` for people."""

    mode: str
    why: str


class WorkerStatus:
    """Gathers the answer; ``version`` is the program's."""

    def __init__(self, workshop: Workshop, confined: Confined, version: str) -> None:
        self._shop = workshop
        self._confined = confined
        self._version = version
        self._started = time.monotonic()

    def __call__(self) -> Mapping[str, Any]:
        """The status now, as JSON's types."""
        shop = self._shop
        return {
            "version": self._version,
            "name": shop.label,
            "worker": shop.name,
            "num_cores": shop.slots.total,
            **shop.tally.counts(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "clients": {
                name: msgspec.structs.asdict(tree) for name, tree in shop.forest.status().items()
            },
            "sandbox": msgspec.structs.asdict(self._confined),
            "store": msgspec.structs.asdict(shop.store.status()),
            "toolchains": [to_plain(toolchain) for toolchain in shop.compilers.advertised()],
            "performance": shop.tally.performance(),
        }
