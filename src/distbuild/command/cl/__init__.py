"""The command line of Microsoft's cl.exe and of clang-cl, which speaks the same language."""
