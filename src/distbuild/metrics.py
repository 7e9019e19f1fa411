"""The syncer's and a worker's metrics in Prometheus' text format. Pure.

They are made of the status documents and the syncer's history when they are scraped: between
scrapes they cost nothing.

Texts and numbers in the syncer's status may come from workers: only numbers that it has counted or
checked itself are used.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

CONTENT_TYPE: str = CONTENT_TYPE_PLAIN_0_0_4
PREFIX = "dist_build_"


def syncer_metrics(
    status: Mapping[str, Any],
    slots: int,
    durations: Mapping[str, tuple[Iterable[tuple[float, int]], float]],
) -> bytes:
    """The response to a scrape. ``slots``: of all workers; ``durations``: see
    ``history.store.History.durations``."""
    metrics = _Metrics()
    version = {str(status["version"]): 1.0}
    metrics.gauges("syncer_info", "The running syncer; always 1.", "version", version)
    metrics.gauge("syncer_uptime_seconds", "Since the syncer's start.", status["uptime_s"])
    _jobs(metrics, status, slots)
    _mirror(metrics, status["mirror"])
    _workers(metrics, status["workers"], int(_number(status, "mirror", "generation")))
    if status.get("cache"):
        _cache(metrics, status["cache"])
    about = "How long jobs took by phase, those of the history; not known without it."
    metrics.histograms(
        "job_seconds", about, "phase", {name.replace(" ", "_"): d for name, d in durations.items()}
    )
    return metrics.text()


def worker_metrics(status: Mapping[str, Any]) -> bytes:
    """The response to a scrape."""
    metrics = _Metrics()
    version = {str(status["version"]): 1.0}
    metrics.gauges("daemon_info", "The running daemon; always 1.", "version", version)
    metrics.gauge("daemon_uptime_seconds", "Since the daemon's start.", status["uptime_s"])
    metrics.gauge("daemon_slots", "Compilers that run at once at most.", status["num_cores"])
    metrics.gauge("daemon_running", "Compilers that run now.", status["running"])
    outcomes = {name: status[name] for name in ("done", "failed", "cancelled")}
    about = "Jobs that ended: with the compiler's verdict, without one, or no longer wanted."
    metrics.counters("daemon_jobs", about, "outcome", outcomes)
    trees = status["clients"].values()
    metrics.gauge("daemon_clients", "Dev boxes of which there is a mirror.", len(trees))
    about = "Files in all mirrors."
    metrics.gauge("daemon_mirrored_files", about, sum(tree["files"] for tree in trees))
    store = status["store"]
    metrics.gauge("daemon_store_bytes", "Mirrored contents on disk.", store["bytes"])
    metrics.gauge("daemon_store_free_bytes", "Free space of that disk.", store["free_bytes"])
    about = "1 while the disk is too full to mirror."
    metrics.gauge("daemon_store_full", about, int(store["is_full"]))
    compilers = len(status["toolchains"])
    metrics.gauge("daemon_compilers", "Compilers that the daemon offers.", compilers)
    return metrics.text()


def _jobs(metrics: "_Metrics", status: Mapping[str, Any], slots: int) -> None:
    jobs = status["jobs"]
    hits = _number(status, "cache", "hits")
    outcomes = {
        "compiled": jobs["done"] - jobs["failed"] - hits,
        "hit": hits,
        "failed": jobs["failed"],
        "local": sum(jobs["local"].values()),
        "cancelled": jobs["cancelled"],
    }
    about = "Jobs that ended: by a worker, by the object cache, failing compiles, on the dev box."
    metrics.counters("jobs", about, "outcome", {k: max(0, n) for k, n in outcomes.items()})
    about = "Jobs that were compiled on the dev box, by the reason that is shown to the user."
    metrics.counters("jobs_local", about, "reason", jobs["local"])
    metrics.counter("jobs_retried", "Compiles that were begun again elsewhere.", jobs["retried"])
    metrics.gauge("jobs_queued", "Jobs that wait for a worker.", jobs["queued"])
    metrics.gauge("jobs_running", "Jobs that workers have.", jobs["running"])
    metrics.gauge("slots", "Compilers that all workers together run at once.", slots)
    here = status["local"]
    metrics.gauge("local_running", "Compilers that run on the dev box.", here["running"])
    metrics.gauge("local_slots", "Compilers that the dev box runs at once.", here["slots"])


def _mirror(metrics: "_Metrics", mirror: Mapping[str, Any]) -> None:
    metrics.gauge("mirror_files", "Mirrored files.", mirror["files"])
    metrics.gauge("mirror_bytes", "Their total size.", mirror["bytes"])
    metrics.gauge("mirror_generation", "Rises with each change.", mirror["generation"])
    about = "Listings of all directories after change events were lost."
    metrics.counter("mirror_rescans", about, mirror["rescans"])
    about = "Bytes of files that were sent to workers."
    metrics.counter("mirror_sent_bytes", about, mirror["sent_bytes"])


def _workers(
    metrics: "_Metrics", workers: Mapping[str, Mapping[str, Any]], generation: int
) -> None:
    states = Counter(str(worker["state"]) for worker in workers.values())
    metrics.gauges("workers", "Workers by their state in status.", "state", dict(states))
    behind = {
        name: max(0, generation - _number(worker, "mirrored_generation"))
        for name, worker in workers.items()
        if worker["state"] == "up" and "mirrored_generation" in worker
    }
    about = "Generations of the mirror that a worker has not confirmed yet."
    metrics.gauges("worker_generation_lag", about, "worker", behind)
    silent = {n: _number(w, "asked_s") for n, w in workers.items() if w.get("asked_s") is not None}
    about = "Since a worker last asked for jobs."
    metrics.gauges("worker_silent_seconds", about, "worker", silent)
    refused = {name: _number(worker, "refused_results") for name, worker in workers.items()}
    about = "Results that were refused: the worker is broken or hostile."
    metrics.counters("worker_refused_results", about, "worker", refused)


def _cache(metrics: "_Metrics", cache: Mapping[str, Any]) -> None:
    metrics.counter("cache_hits", "Jobs that the object cache answered.", cache["hits"])
    about = "Jobs that it did not, by cause."
    metrics.counters("cache_misses", about, "cause", cache["misses"])
    metrics.gauge("cache_results", "Results in the cache.", cache["results"])
    metrics.gauge("cache_bytes", "Their total size.", cache["bytes"])
    metrics.gauge("cache_limit_bytes", "Above it the oldest go.", cache["max_bytes"])
    metrics.counter("cache_evicted", "Results that went for newer ones.", cache["evicted"])
    about = "Results that were damaged on disk, and dropped."
    metrics.counter("cache_damaged", about, cache["damaged"])
    about = "Hits that were compared with a compile (verify_hits)."
    metrics.counter("cache_checked", about, cache["checked"])
    metrics.counter("cache_wrong", "Those that were not equal to it.", cache["wrong"])


class _Metrics:
    """Collects metrics. Names are without ``PREFIX``, and counters' without ``_total``."""

    def __init__(self) -> None:
        self._families: list[Metric] = []

    def counter(self, name: str, about: str, value: float) -> None:
        """Something that only grows until the process ends."""
        self._add(CounterMetricFamily(PREFIX + name, about, labels=[]), {(): value})

    def counters(self, name: str, about: str, label: str, values: Mapping[str, float]) -> None:
        """A counter for each value of ``label``."""
        self._add(CounterMetricFamily(PREFIX + name, about, labels=[label]), _labelled(values))

    def gauge(self, name: str, about: str, value: float) -> None:
        """Something that rises and falls."""
        self._add(GaugeMetricFamily(PREFIX + name, about, labels=[]), {(): value})

    def gauges(self, name: str, about: str, label: str, values: Mapping[str, float]) -> None:
        """A gauge for each value of ``label``."""
        self._add(GaugeMetricFamily(PREFIX + name, about, labels=[label]), _labelled(values))

    def _add(
        self,
        family: CounterMetricFamily | GaugeMetricFamily,
        values: Mapping[tuple[str, ...], float],
    ) -> None:
        for labels, value in values.items():
            family.add_metric(labels, value)
        self._families.append(family)

    def histograms(
        self,
        name: str,
        about: str,
        label: str,
        values: Mapping[str, tuple[Iterable[tuple[float, int]], float]],
    ) -> None:
        """A histogram for each value of ``label``: for each upper bound but the infinite one the
        number of values up to it, with the number of all last; and the sum of all."""
        family = HistogramMetricFamily(PREFIX + name, about, labels=[label])
        for key, (buckets, total) in values.items():
            bounds = [("+Inf" if b == float("inf") else f"{b:g}", float(n)) for b, n in buckets]
            family.add_metric([key], bounds, total)
        self._families.append(family)

    def collect(self) -> Iterator[Metric]:
        """For ``prometheus_client``."""
        yield from self._families

    def text(self) -> bytes:
        """The response to a scrape."""
        return generate_latest(self)


def _labelled(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(key,): value for key, value in values.items()}


def _number(document: Mapping[str, Any], *keys: str) -> float:
    """A count in a status document; 0 if it is missing there or no number."""
    found: Any = document
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else 0
