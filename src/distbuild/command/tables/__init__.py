"""Option tables of gcc and clang, as data: spelling, value form, role and verdict per option."""
