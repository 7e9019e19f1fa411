"""Generated command lines leave what they leave locally: whatever is not understood stays local."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbuild.command.model import Family, LocalReason
from tests.support.cluster import Cluster
from tests.support.differential import compare
from tests.support.generated import flags, lines
from tests.support.tools import need
from tests.support.yard import lay_out

#: Nothing of this kind may come of a command line.
FAILURES = {str(reason) for reason in LocalReason if not reason.by_design}
#: With several hundred a run, the few minutes' worth of a command that hangs.
QUICK, LONG = 40, 700


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, certs_dir: Path) -> Iterator[Cluster]:
    need("bwrap")
    started = Cluster(tmp_path_factory.mktemp("farm"), certs_dir, [{"sandbox": "namespace"}])
    try:
        yield started.start()
        started.stop()
    finally:
        started.kill()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("yard") / "project")


def _check(farm: Cluster, project: Path, family: Family, examples: int, *, fixed: bool) -> None:
    need(str(family))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=fixed,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def every_line_is_faithful(data: st.DataObject) -> None:
        line = data.draw(lines(family, plain))
        outcome = compare(farm, project, line)
        assert outcome.differences() == [], str(line)
        assert outcome.happened not in FAILURES, f"{line}\n{outcome.said}"

    plain = flags(family)
    run: Callable[[], None] = every_line_is_faithful
    run()


@pytest.mark.compiler
@pytest.mark.parametrize("family", Family)
@pytest.mark.timeout(600)
def test_generated_lines(farm: Cluster, project: Path, family: Family) -> None:
    _check(farm, project, family, QUICK, fixed=True)


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.parametrize("family", Family)
@pytest.mark.timeout(3600)
def test_many_generated_lines(farm: Cluster, project: Path, family: Family) -> None:
    _check(farm, project, family, LONG, fixed=False)
