"""Short words for what stands in a row of the option table."""

from distbuild.command.model import Family, LocalReason, Role
from distbuild.command.options import Effect, ValueForm

FLAG, JOINED, SEPARATE, EITHER = (
    ValueForm.FLAG,
    ValueForm.JOINED,
    ValueForm.SEPARATE,
    ValueForm.EITHER,
)
ASSIGNED = ValueForm.ASSIGNED
NONE, FILE, UNLISTED, DIR = Role.NONE, Role.INPUT_FILE, Role.UNLISTED_FILE, Role.INPUT_DIR
OUT, MAP = Role.OUTPUT_FILE, Role.PREFIX_MAP
FINE, ORIGINAL = Effect.FINE, Effect.ORIGINAL_PATHS
CODE, UNSUPPORTED = LocalReason.RUNS_OTHER_CODE, LocalReason.UNSUPPORTED_OPTION
INFORMATION, MODULES = LocalReason.INFORMATION, LocalReason.MODULES
NATIVE, PROFILE = LocalReason.NATIVE_TARGET, LocalReason.PROFILE_USE
PREPROCESS, DEPENDENCIES = LocalReason.PREPROCESS_ONLY, LocalReason.DEPENDENCIES_ONLY
HEADER = LocalReason.PRECOMPILED_HEADER
GCC, CLANG = Family.GCC, Family.CLANG
