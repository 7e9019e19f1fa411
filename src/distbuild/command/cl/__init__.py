"""Command lines of Microsoft's cl.exe and of clang-cl, which accepts the same syntax."""
