"""What names mean in a kernel that Triton's interpreter runs. It looks for Triton's functions in modules only, where it puts its
own for the time of a launch, and makes a kernel anew from its source as if it stood at the level of a module."""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast


def bind_names() -> None:
    """Have it do the same for functions that were imported one by one, and keep the variables of a function that a kernel was made
    in."""
    import triton.language as tl
    import triton.runtime.interpreter as interpreter

    homes = tl, tl.core, tl.math
    found = {id(value): (home, name) for home in reversed(homes) for name, value in vars(home).items() if callable(value)}
    interpreter._patch_lang = _with_names(interpreter._patch_lang, found, tl)
    rewriter = interpreter.FunctionRewriter
    rewriter._compile_and_exec = _with_closure(rewriter._compile_and_exec)


class _Scope:
    """A function's globals, by attribute."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__ = names


def _with_names(patch: Callable[[Any], Any], found: dict[int, tuple[ModuleType, str]], tl: ModuleType) -> Callable[[Any], Any]:
    def patched(function: FunctionType) -> Any:
        names, cells = function.__globals__, function.__closure__ or ()
        theirs = [name for name, value in names.items() if id(value) in found]
        bound = [cell for cell in cells if id(_content(cell)) in found]
        homes = {"core": tl.core} if any(value is tl.core for value in names.values()) else {}
        scope = patch(SimpleNamespace(__globals__={"tl": tl, **homes}))
        for place, name in (*((_Scope(names), name) for name in theirs), *((cell, "cell_contents") for cell in bound)):
            scope.set_attr(place, name, getattr(*found[id(getattr(place, name))]))
        return scope

    return patched


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _with_closure(execute: Callable[..., Any]) -> Callable[..., Any]:
    def executed(self: Any, tree: ast.Module) -> Any:
        inner, was = tree.body[0], self.fn
        if isinstance(inner, ast.FunctionDef):  # what defaults were made of need not be there any more
            nothing = ast.copy_location(ast.Constant(None), inner)
            inner.args.defaults = [nothing for _ in inner.args.defaults]
            inner.args.kw_defaults = [default and nothing for default in inner.args.kw_defaults]
        cells = dict(zip(was.__code__.co_freevars, was.__closure__ or (), strict=True))
        if cells:
            outer = ast.parse(f"def {was.__name__}({', '.join(cells)}): return {was.__name__}")
            cast(ast.FunctionDef, outer.body[0]).body[:0] = tree.body
            made = execute(self, outer)(*map(_content, cells.values()))
            closure = tuple(cells[name] for name in made.__code__.co_freevars)
            made = FunctionType(made.__code__, made.__globals__, made.__name__, None, closure)
        else:
            made = execute(self, tree)
        made.__defaults__, made.__kwdefaults__ = was.__defaults__, was.__kwdefaults__
        # made anew they are strings, and of these it knows "tl.constexpr" alone
        made.__annotations__ = {
            name: "constexpr" if "constexpr" in str(kind) else kind for name, kind in was.__annotations__.items()
        }
        return made

    return executed
