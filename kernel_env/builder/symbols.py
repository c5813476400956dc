"""Which symbols a built extension takes from other libraries: what it can call besides its own code.

Read as the loader reads them: by segments, and by what is to be relocated. Sections are only the linker's notes: a source can add
some of any kind and any number, and the loader looks at none. A function of its own that others may see is taken from another
library, too, where one was loaded for all (RTLD_GLOBAL) that has the name; but not in an extension that is linked with -Bsymbolic.
There its own symbols are bound already, except for C++'s inline variables (UNIQUE), and those are looked for in itself first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<QQ")
_RELOCATION = struct.Struct("<QQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_LOAD, _DYNAMIC = 1, 2
_DYNAMIC_SYMBOLS = 11
MOST_NAME_BYTES = 8 << 20
"""Of all names together. A large extension has a tenth of it; more would be held in the memory of whoever reads them."""
_LOCAL, _UNIQUE = 0, 10
_UNDEFINED = 0
_NULL, _PLT_SIZE, _STRINGS, _SYMBOLS, _RELA, _RELA_SIZE, _PLT, _FLAGS = 0, 2, 5, 6, 7, 8, 23, 30
_SYMBOLIC = 2


class Unreadable(ValueError):
    """What the linker made is no library whose symbols can be told."""


def imported(library: bytes) -> set[str]:
    """Names that the loader looks up for a 64-bit little-endian ELF library. Raises Unreadable."""
    if library[:6] != b"\x7fELF\x02\x01":
        raise Unreadable("the linker made no 64-bit little-endian ELF library")
    try:
        return set(_looked_up(library))
    except (struct.error, IndexError, ValueError) as error:
        raise Unreadable(f"the linker made an ELF library whose symbols cannot be read: {error}") from None


def _looked_up(library: bytes) -> Iterator[str]:
    segments = _segments(library)
    entries = _dynamic(library, segments)
    symbols, strings = _at(segments, entries[_SYMBOLS]), _at(segments, entries[_STRINGS])
    wanted = set[int]()
    for table, size in ((_RELA, _RELA_SIZE), (_PLT, _PLT_SIZE)):
        if entries.get(size):
            start = _at(segments, entries[table])
            rows = library[start : start + entries[size]]
            if len(rows) < entries[size]:
                raise ValueError("a table of relocations ends beyond the file")
            wanted.update(kind >> 32 for _, kind, _ in _RELOCATION.iter_unpack(rows))
    left = MOST_NAME_BYTES
    bound = _UNIQUE if entries.get(_FLAGS, 0) & _SYMBOLIC else _LOCAL
    for index in wanted - {0}:
        name, info, _, section, _, _ = _SYMBOL.unpack_from(library, symbols + index * _SYMBOL.size)
        own = section != _UNDEFINED and info >> 4 == bound
        if info >> 4 != _LOCAL and not own and name:
            end = library.index(b"\0", strings + name)
            left -= end - strings - name
            if left < 0:
                raise ValueError(f"their names take more than {MOST_NAME_BYTES >> 20} MiB")
            yield library[strings + name : end].decode(errors="replace")


def exported(library: bytes) -> set[str]:
    """Names that a library defines for others. It is trusted: its sections say how many there are. Raises Unreadable."""
    try:
        (table,) = struct.unpack_from("<Q", library, 40)
        size, count = struct.unpack_from("<HH", library, 58)
        sections = [_SECTION.unpack_from(library, table + size * index) for index in range(count)]
        (dynamic,) = (section for section in sections if section[1] == _DYNAMIC_SYMBOLS)
        start, length, strings = dynamic[4], dynamic[5], sections[dynamic[6]][4]
        return {
            library[strings + name : library.index(b"\0", strings + name)].decode(errors="replace")
            for name, info, _, section, _, _ in _SYMBOL.iter_unpack(library[start : start + length])
            if section != _UNDEFINED and info >> 4 != _LOCAL
        }
    except (struct.error, IndexError, ValueError) as error:
        raise Unreadable(f"a library of the system cannot be read: {error}") from None


def _segments(library: bytes) -> list[tuple[int, ...]]:
    (table,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    return [_SEGMENT.unpack_from(library, table + size * index) for index in range(count)]


def _dynamic(library: bytes, segments: list[tuple[int, ...]]) -> dict[int, int]:
    """The loader's instructions. Of several of a kind the last counts."""
    (place,) = ((start, length) for kind, _, start, _, _, length, _, _ in segments if kind == _DYNAMIC)
    entries: dict[int, int] = {}
    for tag, value in _ENTRY.iter_unpack(library[place[0] : place[0] + place[1]]):
        if tag == _NULL:
            break
        entries[tag] = value
    if not {_SYMBOLS, _STRINGS} <= entries.keys():
        raise ValueError("it has no table of dynamic symbols")
    return entries


def _at(segments: list[tuple[int, ...]], address: int) -> int:
    """Where in the file lies what is loaded to this address; of segments that overlap the last counts."""
    for kind, _, start, loaded, _, length, _, _ in reversed(segments):
        if kind == _LOAD and loaded <= address < loaded + length:
            return start + address - loaded
    raise ValueError(f"no segment holds the address {address:#x}")
