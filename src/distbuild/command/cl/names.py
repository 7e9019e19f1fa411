"""What cl names its outputs. Strings only; measured with clang-cl 14."""

from distbuild.command.style import PathStyle


def output_name(value: str | None, source: str, extension: str, style: PathStyle) -> str:
    """The file that an option like /Fo with this value makes of ``source``.

    No value: the source's name in the current directory. A value that ends like a directory's
    name: there. A value without extension gets one.
    """
    base = style.base(source)
    if not value:
        return _with_extension(base, extension, style)
    name = value + base if style.is_directory_name(value) else value
    if _extension(value, style):
        return name
    return _with_extension(name, extension, style)


def _extension(path: str, style: PathStyle) -> str:
    """LLVM's ``sys::path::extension``: from the last dot of the name on, also of a name that
    begins with it."""
    name = style.base(path)
    dot = name.rfind(".")
    return "" if dot < 0 or name in (".", "..") else name[dot:]


def _with_extension(path: str, extension: str, style: PathStyle) -> str:
    old = _extension(path, style)
    return f"{path[: len(path) - len(old)]}.{extension}"
