"""A CMake project of twenty named modules: partitions of interfaces and of implementations,
implementation units, modules that export others, in three targets."""

#: Source -> text. The first part of the path is the target's directory.
FILES = {
    "CMakeLists.txt": """cmake_minimum_required(VERSION 3.28)
project(many CXX)
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
add_library(base STATIC)
target_sources(base PUBLIC FILE_SET CXX_MODULES FILES
  base/config.cpp base/text.cpp base/math.cpp)
target_include_directories(base PUBLIC include)
add_library(mid STATIC mid/geo_impl.cpp mid/store_impl.cpp mid/engine_impl.cpp)
target_sources(mid PUBLIC FILE_SET CXX_MODULES FILES
  mid/geo.cpp mid/geo_point.cpp mid/geo_shape.cpp mid/geo_detail.cpp
  mid/store.cpp mid/store_row.cpp mid/store_table.cpp mid/store_inner.cpp
  mid/net.cpp mid/net_addr.cpp mid/net_conn.cpp
  mid/log.cppm mid/opts.cppm mid/util.cppm mid/report.cpp mid/engine.cpp mid/facade.cpp)
target_link_libraries(mid PUBLIC base)
add_executable(tool tool/main.cpp tool/other.cpp tool/plain.cpp)
target_link_libraries(tool mid)
""",
    "include/limits_of.h": "#pragma once\n#define LIMIT 7\n",
    "base/config.cpp": "module;\n#include <limits_of.h>\nexport module base.config;\n"
    "export constexpr int limit() { return LIMIT; }\n",
    "base/text.cpp": "module;\n#include <string>\nexport module base.text;\n"
    "export namespace text {\n"
    "std::string quoted(const std::string& s) { return '<' + s + '>'; }\n}\n",
    "base/math.cpp": "export module base.math;\nimport base.config;\n"
    "export template <class T> T clamp(T v) { return v > limit() ? T(limit()) : v; }\n"
    "export inline int square(int v) { return v * v; }\n",
    "mid/geo_point.cpp": "export module geo:point;\nimport base.math;\n"
    "export struct point { int x = 0, y = 0;\n"
    "  int norm() const { return square(x) + square(y); } };\n",
    "mid/geo_shape.cpp": "export module geo:shape;\nexport import :point;\n"
    "export struct shape { point at; virtual int area() const; virtual ~shape() = default; };\n"
    "export struct box : shape { int w, h; box(int a, int b) : w(a), h(b) {}\n"
    "  int area() const override { return w * h; } };\n",
    "mid/geo_detail.cpp": "module geo:detail;\nimport :point;\n"
    "int detail(const point& p) { return p.norm() + 1; }\n",
    "mid/geo.cpp": "export module geo;\nexport import :point;\nexport import :shape;\n"
    "import :detail;\nexport int weight(const shape& s);\n",
    "mid/geo_impl.cpp": "module geo;\nimport :detail;\nimport base.math;\n"
    "int shape::area() const { return 0; }\n"
    "int weight(const shape& s) { return clamp(s.area()) + detail(s.at); }\n",
    "mid/store_row.cpp": "module;\n#include <string>\nexport module store:row;\n"
    "export struct row { std::string key; int value; };\n",
    "mid/store_table.cpp": "module;\n#include <string>\n#include <vector>\n"
    "export module store:table;\nexport import :row;\n"
    "export struct table { std::vector<row> rows; void add(const std::string& k, int v); };\n",
    "mid/store_inner.cpp": "module store:inner;\nimport :row;\n"
    "bool same(const row& a, const row& b) { return a.value == b.value; }\n",
    "mid/store.cpp": "export module store;\nexport import :table;\nimport :inner;\n"
    "export int total(const table& t);\n",
    "mid/store_impl.cpp": "module;\n#include <string>\n#include <vector>\n"
    "module store;\nimport :inner;\n"
    "void table::add(const std::string& k, int v) { rows.push_back({k, v}); }\n"
    "int total(const table& t) { int s = 0; for (auto& r : t.rows) s += r.value + same(r, r);\n"
    "  return s; }\n",
    "mid/net_addr.cpp": "module;\n#include <string>\nexport module net:addr;\nimport base.text;\n"
    "export struct addr { std::string host; std::string show() const {\n"
    "  return text::quoted(host); } };\n",
    "mid/net_conn.cpp": "export module net:conn;\nimport :addr;\n"
    "export struct conn { addr to; int port = 1; };\n",
    "mid/net.cpp": "export module net;\nexport import :addr;\nexport import :conn;\n",
    "mid/log.cppm": "module;\n#include <string>\nexport module app.log;\nimport base.text;\n"
    "export std::string line(int n) { return text::quoted(std::to_string(n)) + __FILE__; }\n",
    "mid/opts.cppm": "export module app.opts;\nexport import base.config;\n"
    "export struct opts { int level = limit(); };\n",
    "mid/util.cppm": "export module util;\nexport import base.math;\nexport import base.text;\n",
    "mid/report.cpp": "module;\n#include <string>\nexport module report;\n"
    "import store;\nimport app.log;\n"
    "export std::string report(const table& t) { return line(total(t)); }\n",
    "mid/engine.cpp": "export module engine;\nexport import app.opts;\nimport geo;\nimport net;\n"
    "export struct engine { opts o; int run(int n) const; };\n",
    "mid/engine_impl.cpp": "module;\n#include <string>\nmodule engine;\nimport util;\n"
    "int engine::run(int n) const { box b{n, o.level}; conn c; c.port = n;\n"
    "  return weight(b) + clamp(c.port); }\n",
    "mid/facade.cpp": "export module facade;\nexport import engine;\nexport import geo;\n"
    "export import store;\nexport import report;\nexport import net;\n",
    "tool/main.cpp": "#include <cstdio>\n#include <string>\nimport facade;\nint plain();\n"
    "int other();\n"
    'int main() { table t; t.add("a", 2); engine e;\n'
    '  std::printf("%d %d %d %s\\n", e.run(3), other(), plain(), report(t).substr(0, 3).c_str());\n'
    "}\n",
    "tool/other.cpp": "import geo;\nimport util;\n"
    "int other() { box b{2, 3}; b.at = {1, square(2)}; return weight(b) + b.at.norm(); }\n",
    "tool/plain.cpp": "#include <vector>\nint plain() { return std::vector<int>(3).size(); }\n",
}
SOURCES = [name for name in FILES if name.endswith((".cpp", ".cppm"))]
#: What the program prints.
SAYS = "11 41 3 <3>\n"


def edited(name: str, old: str, new: str) -> dict[str, str]:
    """The project after an edit of one file."""
    assert old in FILES[name]
    return {**FILES, name: FILES[name].replace(old, new)}
