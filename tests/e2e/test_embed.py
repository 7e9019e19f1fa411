"""``#embed`` of gcc 15 and clang 19: its files are inputs, and those that are not there count."""

import subprocess
from pathlib import Path

import pytest

from tests.support.cluster import Cluster
from tests.support.cmake import lay_out, outcomes
from tests.support.objects import assert_same
from tests.support.tools import need

pytestmark = pytest.mark.compiler

STANDARD = {"gcc": "-std=c23", "clang": "-std=c23"}
EMBED = "const unsigned char data[] = {{\n#embed {}\n, 0}};\n"
ASKS = """#if __has_embed("empty.bin") == __STDC_EMBED_EMPTY__
int is_empty = 1;
#endif
#if __has_embed("absent.bin")
int is_there = 1;
#endif
#if __has_embed("../outside.bin") == __STDC_EMBED_FOUND__
int is_outside = 1;
#endif
"""


def embedding(family: str) -> str:
    """The compiler, if it knows ``#embed``, or skip."""
    need("bwrap")
    compiler = need(family)
    words = [compiler, STANDARD[family], "-dM", "-E", "-xc", "/dev/null"]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    if "__STDC_EMBED_EMPTY__" not in said:
        pytest.skip(f"a {family} that knows #embed is not installed")
    return family


@pytest.mark.parametrize("family", ["gcc", "clang"])
def test_an_embedded_file_is_an_input(cluster: Cluster, tmp_path: Path, family: str) -> None:
    argv = [
        embedding(family),
        STANDARD[family],
        "-g",
        "-O1",
        "--embed-dir=inc",
        "-c",
        "x.c",
        "-o",
        "x.o",
    ]
    project = tmp_path / "project"
    files = {"x.c": "", "inc/logo.bin": "first\0 text", "inc/logo.o": "an object", "n.txt": "n"}
    lay_out(project, {**files, "empty.bin": ""})
    lay_out(tmp_path, {"outside.bin": "outside"})

    def found() -> dict[str, int]:
        return outcomes(cluster, lambda: assert_same(cluster, argv, project))

    for operand in ("<logo.bin>", '"n.txt"', '"../outside.bin"', '"inc/logo.o"'):
        (project / "x.c").write_text(EMBED.format(operand))
        assert found() == {"done": 1}, operand
    (project / "x.c").write_text(EMBED.format("<logo.bin> limit(4) prefix(1,) suffix(,2)"))
    (project / "inc/logo.bin").write_text("another text")
    assert found() == {"done": 1}
    # gcc stops before it lists its inputs.
    (project / "x.c").write_text(EMBED.format('"absent.bin"'))
    assert found() in ({"unproved_failure": 1}, {"done": 1})
    (project / "x.c").write_text(ASKS)
    assert found() == {"done": 1}
