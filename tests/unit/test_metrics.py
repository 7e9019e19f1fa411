from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from distbuild.history.builds import Histogram
from distbuild.metrics import syncer_metrics


def status(**other: Any) -> dict[str, Any]:
    return {
        "version": "1.2",
        "uptime_s": 5.0,
        "jobs": {
            "queued": 3,
            "running": 2,
            "cancelled": 1,
            "retried": 4,
            "done": 50,
            "failed": 7,
            "local": {"link": 5, "no_worker": 6},
        },
        "local": {"slots": 2, "running": 1, "waiting": 0},
        "cache": None,
        "mirror": {"files": 10, "bytes": 99, "generation": 20, "rescans": 0, "sent_bytes": 8},
        "workers": {},
        **other,
    }


def scraped(text: bytes) -> dict[tuple[str, ...], float]:
    """Values by name and label values, in the order of the labels' names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_each_job_counts_once_among_the_outcomes() -> None:
    cache = {
        **dict.fromkeys(("results", "bytes", "max_bytes", "evicted", "damaged"), 1),
        "hits": 20,
        "checked": 2,
        "wrong": 0,
        "misses": {"an input changed": 3},
    }
    values = scraped(syncer_metrics(status(cache=cache), 8, {}))
    jobs = {key[1]: n for key, n in values.items() if key[0] == "dist_build_jobs_total"}
    assert jobs == {"compiled": 23, "hit": 20, "failed": 7, "local": 11, "cancelled": 1}
    assert values["dist_build_jobs_local_total", "no_worker"] == 6
    assert values["dist_build_cache_misses_total", "an input changed"] == 3
    assert values["dist_build_slots",] == 8


def test_without_a_cache_or_a_history_their_metrics_are_absent() -> None:
    names = {key[0] for key in scraped(syncer_metrics(status(), 0, {}))}
    assert not [name for name in names if "cache" in name or "job_seconds" in name]


def test_durations_are_a_histogram_by_phase() -> None:
    durations = Histogram()
    for seconds in (0.0005, 0.3, 1e6):
        durations.add(seconds)
    given = {"on the worker": (durations.up_to(), durations.sum_s)}
    values = scraped(syncer_metrics(status(), 0, given))
    buckets = {
        (float(bound), phase): n
        for (_, bound, phase), n in (item for item in values.items() if len(item[0]) == 3)
    }
    bounds = (0.001, 0.2, 0.5, 100, float("inf"))
    counts = [buckets[bound, "on_the_worker"] for bound in bounds]
    assert counts == [1, 1, 2, 2, 3]
    assert values["dist_build_job_seconds_count", "on_the_worker"] == 3
    assert values["dist_build_job_seconds_sum", "on_the_worker"] == 1e6 + 0.3005


def test_a_worker_cannot_forge_a_metric() -> None:
    name = 'w"\n} 1\ndist_build_jobs_queued 77\n'
    worker = {"state": "up", "asked_s": "soon", "mirrored_generation": [1], "refused_results": {}}
    values = scraped(syncer_metrics(status(workers={name: worker}), 0, {}))
    assert values["dist_build_jobs_queued",] == 3
    assert values["dist_build_worker_generation_lag", name] == 20
    assert values["dist_build_worker_silent_seconds", name] == 0
    assert values["dist_build_worker_refused_results_total", name] == 0


def test_workers_by_state_and_how_far_they_are_behind() -> None:
    workers = {
        "a:1": {"state": "up", "mirrored_generation": 18, "asked_s": 0.5},
        "b:1": {"state": "up", "mirrored_generation": 20, "asked_s": 0.1, "refused_results": 2},
        "c:1": {"state": "down", "mirrored_generation": 1, "asked_s": None},
    }
    values = scraped(syncer_metrics(status(workers=workers), 0, {}))
    assert values["dist_build_workers", "up"] == 2
    assert values["dist_build_workers", "down"] == 1
    assert values["dist_build_worker_generation_lag", "a:1"] == 2
    assert ("dist_build_worker_generation_lag", "c:1") not in values
    assert ("dist_build_worker_silent_seconds", "c:1") not in values
    assert values["dist_build_worker_refused_results_total", "b:1"] == 2
