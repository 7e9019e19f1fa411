"""Options of the -f, -g, -m and -W families whose value is a number or keyword and never a path.

Source: gcc 12, 14, 15, 16 (``--help=joined``), clang 14, 19, 21, 22 (``--autocomplete=-``). An
option in no table may have any value. Also short names for the columns of the row tables.
"""

from distbuild.command.model import Family, LocalReason, Role
from distbuild.command.options import Effect, ValueForm

_SPELLINGS = """
-Wabi= -Waligned-new= -Walloc-size-larger-than= -Walloca-larger-than= -Warray-bounds=
-Warray-parameter= -Wattribute-alias= -Wattributes= -Wbidi-chars= -Wcatch-value= -Wdangling-pointer=
-Werror= -Wformat-overflow= -Wformat-truncation= -Wformat= -Wframe-larger-than=
-Wimplicit-fallthrough= -Wlarger-than= -Wleading-whitespace= -Wno-alloc-size-larger-than=
-Wno-alloca-larger-than= -Wno-attributes= -Wno-error= -Wno-format= -Wno-frame-larger-than=
-Wno-strict-aliasing= -Wno-strict-overflow= -Wno-vla-larger-than= -Wnormalized=
-Woverloaded-virtual= -Wplacement-new= -Wsfinae-incomplete= -Wshift-overflow= -Wstack-usage=
-Wstrict-aliasing= -Wstrict-overflow= -Wstringop-overflow= -Wsystem-headers-in-module=
-Wtrailing-whitespace= -Wundef-prefix= -Wunused-but-set-parameter= -Wunused-but-set-variable=
-Wunused-const-variable= -Wuse-after-free= -Wvla-larger-than=
-fabi-compat-version= -fabi-version= -fada-spec-parent= -falign-functions= -falign-jumps=
-falign-labels= -falign-loops= -faligned-new= -falloc-token-max=
-fallow-runtime-check-skip-hot-cutoff= -faltivec-src-compat= -fanalyzer-checker=
-fanalyzer-verbosity= -fasan-shadow-offset= -fbinutils-version= -fblas-matmul-limit=
-fbracket-depth= -fc++-abi= -fc++-static-destructors= -fcaret-diagnostics-max-lines=
-fcf-protection= -fcf-runtime-abi= -fcheck= -fchecking= -fclang-abi-compat= -fcoarray=
-fcomment-block-commands= -fcomplex-arithmetic= -fconcepts-diagnostics-depth= -fconst-string-class=
-fconstant-string-class= -fconstexpr-backtrace-limit= -fconstexpr-cache-depth= -fconstexpr-depth=
-fconstexpr-loop-limit= -fconstexpr-ops-limit= -fconstexpr-steps= -fcontract-assumption-mode=
-fcontract-build-level= -fcontract-continuation-mode= -fcontract-evaluation-semantic=
-fcontract-mode= -fcontract-role= -fcontract-semantic= -fcontract-strict-declarations=
-fcontracts-client-check= -fcontracts-definition-check= -fconvert= -fcrash-diagnostics= -fcx-method=
-fdbg-cnt= -fdebug-default-version= -fdenormal-fp-math= -fdiagnostics-color=
-fdiagnostics-column-origin= -fdiagnostics-column-unit= -fdiagnostics-escape-format=
-fdiagnostics-format= -fdiagnostics-hotness-threshold= -fdiagnostics-minimum-margin-width=
-fdiagnostics-misexpect-tolerance= -fdiagnostics-path-format= -fdiagnostics-show-category=
-fdiagnostics-show-context= -fdiagnostics-show-location= -fdiagnostics-text-art-charset=
-fdiagnostics-urls= -fdx-rootsignature-define= -fdx-rootsignature-version= -femit-dwarf-unwind=
-femit-struct-debug-detailed= -fencoding= -ferror-limit= -fexcess-precision= -fexec-charset=
-fexperimental-sanitize-metadata= -fextend-arguments= -fextend-variable-liveness= -ffp-contract=
-ffp-eval-method= -ffp-exception-behavior= -ffp-model= -ffpe-trap= -ffuchsia-api-level=
-fgnat-encodings= -fgnuc-version= -fgpu-default-stream= -fgpu-inline-threshold=
-fhardcfr-check-noreturn-calls= -finit-character= -finit-integer= -finit-logical= -finit-real=
-finline-limit= -finline-max-stacksize= -finline-stringops= -finput-charset=
-finstrument-functions-exclude-function-list= -fira-algorithm= -fira-region= -fira-verbose=
-flax-vector-conversions= -flifetime-dse= -flimited-precision= -flive-patching=
-flto-compression-level= -flto-incremental-cache-size= -flto-jobs= -flto-partition=
-flto-partitions= -fmacro-backtrace-limit= -fmalloc-dce= -fmatrix-memory-layout=
-fmax-array-constructor= -fmax-errors= -fmax-include-depth= -fmax-stack-var-size=
-fmax-subrecord-length= -fmax-tokens= -fmax-type-align= -fmemory-profile= -fmin-function-alignment=
-fms-compatibility-version= -fms-memptr-rep= -fms-runtime-lib= -fms-secure-hotpatch-functions-list=
-fmsc-version= -fnew-alignment= -fno-experimental-sanitize-metadata=
-fno-sanitize-annotate-debug-info= -fno-sanitize-coverage= -fno-sanitize-merge=
-fno-sanitize-recover= -fno-sanitize-trap= -fno-sanitize= -fobjc-abi-version=
-fobjc-nonfragile-abi-version= -fobjc-runtime= -foffload-abi-host-opts= -foffload-abi=
-foffload-lto= -foffload-options= -foffload= -fopenacc-dim= -fopenmp-cuda-blocks-per-sm=
-fopenmp-cuda-number-of-sm= -fopenmp-cuda-teams-reduction-recs-num= -fopenmp-target-debug=
-fopenmp-target-simd-clone= -fopenmp-version= -fopenmp= -foperator-arrow-depth=
-foptimization-record-passes= -fpack-struct= -fpatchable-function-entry= -fpath-coverage-limit=
-fpermitted-flt-eval-methods= -fprofile-function-groups= -fprofile-reproducible=
-fprofile-selected-function-group= -fprofile-update= -frandom-seed= -frandomize-layout-seed=
-frecord-marker= -freorder-blocks-algorithm= -fsanitize-address-destructor=
-fsanitize-address-field-padding= -fsanitize-address-use-after-return=
-fsanitize-annotate-debug-info= -fsanitize-coverage-stack-depth-callback-min= -fsanitize-coverage=
-fsanitize-debug-trap-reasons= -fsanitize-hwaddress-abi= -fsanitize-kcfi-hash=
-fsanitize-memory-track-origins= -fsanitize-memtag-mode= -fsanitize-merge= -fsanitize-recover=
-fsanitize-sections= -fsanitize-skip-hot-cutoff= -fsanitize-trap=
-fsanitize-undefined-ignore-overflow-pattern= -fsanitize-undefined-strip-path-components=
-fsched-stalled-insns-dep= -fsched-stalled-insns= -fsched-verbose= -fshow-overloads=
-fsimd-cost-model= -fspell-checking-limit= -fspv-extension= -fspv-target-env= -fsso-struct=
-fstack-check= -fstack-limit-register= -fstack-limit-symbol= -fstack-reuse= -fstrict-flex-arrays=
-fstrong-eval-order= -fswift-async-fp= -fsymbol-partition= -ftabstop= -ftemplate-backtrace-limit=
-ftemplate-depth= -ftls-model= -ftrack-macro-expansion= -ftrampoline-impl= -ftrap-function=
-ftree-parallelize-loops= -ftree-vectorizer-verbose= -ftrivial-auto-var-init-max-size=
-ftrivial-auto-var-init-stop-after= -ftrivial-auto-var-init= -fuse-cuid= -fuse-ld= -fuse-lipo=
-fveclib= -fvect-cost-model= -fvisibility-dllexport= -fvisibility-externs-dllimport=
-fvisibility-externs-nodllstorageclass= -fvisibility-global-new-delete=
-fvisibility-nodllstorageclass= -fvisibility= -fvtable-verify= -fwide-exec-charset=
-fwinx64-eh-unwindv2= -fxray-function-groups= -fxray-selected-function-group= -fzero-call-used-regs=
-fzero-init-padding-bits=
-gz=
-mabi= -mabs= -maddress-mode= -malign-branch-boundary= -malign-branch= -malign-data=
-malign-functions= -malign-jumps= -malign-loops= -mapx-features= -march= -masm= -mbranch-cost=
-mbranch-protection= -mcf-branch-label-scheme= -mcmodel= -mcode-object-version= -mcompact-branches=
-mcpu= -mdefault-visibility-export-mapping= -mdouble= -mexec-model= -mfentry-name= -mfentry-section=
-mfloat-abi= -mfpmath= -mfpu= -mframe-chain= -mfunction-return= -mguard= -mharden-sls= -mhvx-length=
-mhvx= -mhwdiv= -mhwmult= -mimplicit-it= -mincoming-stack-boundary= -mindirect-branch=
-mindirect-jump= -minstrument-return= -mios-simulator-version-min= -mios-version-min=
-miphoneos-version-min= -mlam= -mlarge-data-threshold= -mlinker-version= -mmacos-version-min=
-mmacosx-version-min= -mmcu= -mmemcpy-strategy= -mmemset-strategy= -mmove-max= -mnan=
-mno-apx-features= -mno-tocdata= -moslib= -mpad-max-prefix-size= -mprefer-vector-width=
-mpreferred-stack-boundary= -mprintf-kind= -mrecip= -mregparm= -mrvv-vector-bits=
-msign-return-address= -msimd= -msmall-data-limit= -msmall-data-threshold= -mstack-alignment=
-mstack-probe-size= -mstack-protector-guard-offset= -mstack-protector-guard-reg=
-mstack-protector-guard-symbol= -mstack-protector-guard= -mstore-max= -mstringop-strategy=
-msve-streaming-vector-bits= -msve-vector-bits= -mtargetos= -mtls-dialect= -mtls-size= -mtocdata=
-mtp= -mtune-ctrl= -mtune= -mtvos-version-min= -mveclibabi= -mvscale-max= -mvscale-min=
-mwatchos-simulator-version-min= -mwatchos-version-min= -mzos-target=
"""

PLAIN_VALUES: tuple[str, ...] = tuple(sorted(_SPELLINGS.split()))


FLAG, JOINED, SEPARATE, EITHER = (
    ValueForm.FLAG,
    ValueForm.JOINED,
    ValueForm.SEPARATE,
    ValueForm.EITHER,
)
ASSIGNED, NAMED = ValueForm.ASSIGNED, ValueForm.NAMED
NONE, FILE, UNLISTED, DIR = Role.NONE, Role.INPUT_FILE, Role.UNLISTED_FILE, Role.INPUT_DIR
OUT, MAP, MAPPER = Role.OUTPUT_FILE, Role.PREFIX_MAP, Role.MODULE_MAPPER
FINE, ORIGINAL = Effect.FINE, Effect.ORIGINAL_PATHS
CODE, UNSUPPORTED = LocalReason.RUNS_OTHER_CODE, LocalReason.UNSUPPORTED_OPTION
INFORMATION, MODULES = LocalReason.INFORMATION, LocalReason.MODULES
NATIVE, PROFILE = LocalReason.NATIVE_TARGET, LocalReason.PROFILE_USE
PREPROCESS, DEPENDENCIES = LocalReason.PREPROCESS_ONLY, LocalReason.DEPENDENCIES_ONLY
HEADER = LocalReason.PRECOMPILED_HEADER
GCC, CLANG = Family.GCC, Family.CLANG
