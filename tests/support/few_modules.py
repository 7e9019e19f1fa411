"""A few named modules and the mappers for gcc by which they are made without CMake."""

FILES = {
    "lib/part.cc": "export module a:part;\nexport inline int three() { return 3; }\n",
    "lib/inner.cc": "module a:inner;\nimport :part;\nint four() { return three() + 1; }\n",
    "base/base.cc": "module;\n#include <cfg.h>\n"
    "export module base.core;\nexport struct S { int x; int get() const { return CFG * x; } };\n"
    "export template <class T> T add(T p, T q) { return p + q; }\n",
    "lib/a.cc": "module;\n#include <cfg.h>\n"
    "export module a;\nexport import :part;\nimport :inner;\nimport base.core;\n"
    "export inline int twice(int x) { S s{x}; return add(s.get(), CFG); }\n"
    "export int far(int x);\n",
    "lib/impl.cc": "module a;\nimport :inner;\n"
    "int far(int x) { return four() + twice(x) + three(); }\n",
    "other/b.cc": "export module b;\nimport a;\n"
    "export int f(int x) { return twice(x) + three(); }\n",
    "inc/cfg.h": "#define CFG 2\n",
    "main.cc": "import b;\nimport a;\nint main() { return f(1) + twice(4) + far(2); }\n",
}
SOURCES = {
    "part": "../lib/part.cc",
    "inner": "../lib/inner.cc",
    "base": "../base/base.cc",
    "a": "../lib/a.cc",
    "impl": "../lib/impl.cc",
    "b": "../other/b.cc",
    "main": "../main.cc",
}
COMPILED = {
    "a": "mods/a.gcm",
    "a:part": "mods/a-part.gcm",
    "a:inner": "mods/a-inner.gcm",
    "base.core": "base.core.gcm",
    "b": "mods/b.gcm",
}
#: Each compile after those whose modules it imports: what its mapper maps. As in CMake's, the
#: modules that only others import are missing.
STEPS = {
    "part": ["a:part"],
    "inner": ["a:inner", "a:part"],
    "base": ["base.core"],
    "a": ["a", "a:part", "a:inner", "base.core"],
    "impl": ["a:inner", "a"],
    "b": ["b", "a"],
    "main": ["b", "a"],
}


def mappers() -> dict[str, str]:
    return {
        f"build/{step}.modmap": "$root .\n" + "".join(f"{n} {COMPILED[n]}\n" for n in names)
        for step, names in STEPS.items()
    } | {"build/mods/.keep": ""}
