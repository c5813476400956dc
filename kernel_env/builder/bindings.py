"""Writes the bindings that `functions=[...]` asks for, and says what is wrong with that list when they do not compile."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

from kernel_env.builder.diagnostics import errors

Functions = Sequence[tuple[str, str]]
"""(name, docstring) pairs."""

FILE = "<functions>"
"""What diagnostics call the generated lines. No file of a candidate can have that name, but a source can have it said,
with `#line` or by the assembler."""
_GENERATED = re.compile(rf"^{FILE}:(?P<line>\d{{1,9}}):", re.MULTILINE)
_FOLLOWING = re.compile(rf"^{FILE}:(?=\d+:\d+: error:| In | At )", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_]\w*(::[A-Za-z_]\w*)*", re.ASCII)


def refused_name(functions: Functions) -> str | None:
    """The first name that is not a C++ name, or None."""
    return next((name for name, _ in functions if not _NAME.fullmatch(name)), None)


def source(functions: Functions, module: str, *, quick: bool) -> str:
    """C++ text: first one line a function that only names it, then a table with one line a function. Empty without functions."""
    if not functions:
        return ""
    named = [f"using ::{name};" for name, _ in functions]
    if quick:
        table = [
            f"static PyMethodDef {module}_methods[] = {{",
            *(f"  kernel_env::method<&::{name}>({_literal(name)}, {_literal(doc)})," for name, doc in functions),
            "  {nullptr, nullptr, 0, nullptr}};",
            f'extern "C" __attribute__((visibility("default"))) PyObject* PyInit_{module}() {{',
            f'  return kernel_env::module("{module}", {module}_methods);',
            "}",
        ]
    else:
        table = [
            "PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {",
            *(f"  m.def({_literal(name)}, torch::wrap_pybind_function(::{name}), {_literal(doc)});" for name, doc in functions),
            "}",
        ]
    return "\n".join([f'\n#line 1 "{FILE}"', *named, *table, ""])


def needs_pybind(log: str, functions: Functions) -> bool:
    """Whether the first error is that our own bindings cannot carry a function that does exist."""
    first = next(errors(log), None)
    return first is not None and first.file in (FILE, "kernel_env_bind.h") and not _missing(log, functions)


def explained(log: str, functions: Functions) -> str:
    """The log of a failed compilation. Errors in generated lines become a sentence if they come first, and go if they follow."""
    first = next(errors(log), None)
    if first is None or not functions:  # without any no line is generated
        return log
    ours = _GENERATED.search(log, 0, f"{log}\n".index("\n", first.offset))
    if ours is None:
        return _FOLLOWING.split(log, maxsplit=1)[0]
    missing = _missing(log, functions)
    if missing:
        return f"functions names {', '.join(map(repr, missing))}, but the C++ source defines no such function\n"
    row = min(max(int(ours["line"]) - len(functions) - 2, 0), len(functions) - 1)
    return f"functions names {functions[row][0]!r}, which cannot be called from Python: is it overloaded, or a template?\n"


def _missing(log: str, functions: Functions) -> list[str]:
    """Functions whose naming line is in error."""
    lines = {place.line for place in errors(log) if place.file == FILE}
    return [name for line, (name, _) in enumerate(functions, 1) if line in lines]


def _literal(text: str) -> str:
    """A C++ string literal of the text's UTF-8 bytes."""
    plain = string.ascii_letters + string.digits + " _.,:;()[]+-*/=<>"
    return '"' + "".join(chr(b) if chr(b) in plain else f"\\{b:03o}" for b in text.encode(errors="replace")) + '"'
