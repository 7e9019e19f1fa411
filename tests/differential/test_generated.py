"""Generated command lines leave what they leave locally: whatever is not understood stays local."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distbuild.command.model import Family, LocalReason
from tests.support import generated_cl, yard_cl
from tests.support.cluster import Cluster
from tests.support.differential import compare
from tests.support.generated import flags, lines
from tests.support.tools import need, need_versioned
from tests.support.yard import lay_out

#: Nothing of this kind may come of a command line.
FAILURES = {str(reason) for reason in LocalReason if not reason.by_design}
#: With several hundred a run, the few minutes' worth of a command that hangs.
QUICK, LONG = 15, 700
FAMILIES = (Family.GCC, Family.CLANG, Family.CLANG_CL)


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
def yards(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Family, Path]:
    made = lay_out(tmp_path_factory.mktemp("yard") / "project")
    cl = yard_cl.lay_out(tmp_path_factory.mktemp("yard cl") / "project")
    return {Family.GCC: made, Family.CLANG: made, Family.CLANG_CL: cl}


def _check(
    farm: Cluster, yards: Mapping[Family, Path], family: Family, examples: int, *, fixed: bool
) -> None:
    is_cl = family is Family.CLANG_CL
    compiler = need_versioned(str(family)) if is_cl else need(str(family))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=fixed,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def every_line_is_faithful(data: st.DataObject) -> None:
        some = generated_cl.lines(compiler, plain) if is_cl else lines(family, plain)
        line = data.draw(some)
        outcome = compare(farm, yards[family], line)
        assert outcome.differences() == [], str(line)
        assert outcome.happened not in FAILURES, f"{line}\n{outcome.said}"

    plain = generated_cl.flags(compiler) if is_cl else flags(family)
    run: Callable[[], None] = every_line_is_faithful
    run()


@pytest.mark.compiler
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.timeout(600)
def test_generated_lines(farm: Cluster, yards: Mapping[Family, Path], family: Family) -> None:
    _check(farm, yards, family, QUICK, fixed=True)


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.timeout(3600)
def test_many_generated_lines(farm: Cluster, yards: Mapping[Family, Path], family: Family) -> None:
    _check(farm, yards, family, LONG, fixed=False)
