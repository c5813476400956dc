"""Which symbols a built extension takes from other libraries: what it can call besides its own code."""

from __future__ import annotations

import struct

from kernel_env.errors import BuilderError

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNSYM = 11


def imported(library: bytes) -> tuple[str, ...]:
    """Names of the undefined dynamic symbols of a 64-bit little-endian ELF library, sorted. Raises BuilderError if it is none."""
    if library[:6] != b"\x7fELF\x02\x01":
        raise BuilderError("the linker made no 64-bit little-endian ELF library")
    try:
        (table,) = struct.unpack_from("<Q", library, 40)
        size, count = struct.unpack_from("<HH", library, 58)
        sections = [_SECTION.unpack_from(library, table + size * index) for index in range(count)]
        names: set[str] = set()
        for _, kind, _, _, start, length, link, _, _, _ in sections:
            if kind == _DYNSYM:
                names.update(_undefined(library[start : start + length], library[sections[link][4] :][: sections[link][5]]))
    except (struct.error, IndexError, ValueError) as error:
        raise BuilderError(f"the linker made a damaged ELF library: {error}") from None
    return tuple(sorted(names))


def _undefined(symbols: bytes, strings: bytes) -> set[str]:
    found = set()
    for name, _, _, section, _, _ in _SYMBOL.iter_unpack(symbols):
        if section == 0 and name:
            found.add(strings[name : strings.index(b"\0", name)].decode(errors="replace"))
    return found
