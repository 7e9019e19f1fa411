"""Benchmarks: what a compile costs, beside the other tools that are installed here."""

import sys
from pathlib import Path

# Where distbuild is not installed: in a clone.
sys.path.append(str(Path(__file__).resolve().parents[1] / "src"))
