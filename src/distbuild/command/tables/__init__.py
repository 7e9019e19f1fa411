"""The option tables of gcc and clang, as data."""
