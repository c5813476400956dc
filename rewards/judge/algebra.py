"""Are two expressions equal? A small evaluator of our own: nothing is handed to `eval`, and no expression can take long.

Expressions are computed at the same random points. Rational arithmetic is exact, so that polynomials and fractions that agree at
all points are equal but for a chance far below one in a million; where functions such as sin take part, numbers are compared as
floats.
"""

from __future__ import annotations

import ast
import cmath
import math
import random
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

Number = Fraction | complex

_MOST_CHARS = 2_000
_MOST_NODES = 400
_MOST_BITS = 4_096
_POINTS = 4
_DIGITS = 1e-9
_CONSTANTS: Mapping[str, Number] = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    "sqrt": cmath.sqrt, "exp": cmath.exp, "ln": cmath.log, "log": cmath.log, "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan,
    "asin": cmath.asin, "acos": cmath.acos, "atan": cmath.atan, "arcsin": cmath.asin, "arccos": cmath.acos, "arctan": cmath.atan,
    "sinh": cmath.sinh, "cosh": cmath.cosh, "tanh": cmath.tanh, "abs": lambda z: complex(abs(z)),
}  # fmt: skip
_NAMES = sorted([*_FUNCTIONS, "pi"], key=len, reverse=True)
_GREEK = r"alpha|beta|gamma|delta|epsilon|theta|lambda|mu|nu|phi|psi|rho|sigma|tau|omega"
_WORDS = re.compile(rf"({'|'.join(_NAMES)}|{_GREEK}|[A-Za-z])(?:_(\d))?")


class NotAnExpression(ValueError):
    """The text is nothing that can be computed."""


def same_value(one: str, other: str) -> bool | None:
    """Whether two texts are equal as expressions; None where one of them is none.

    Names are variables, each letter one of its own (`xy` is x times y), but for `e`, `i`, `pi` and functions.
    """
    try:
        trees = parse(one), parse(other)
    except NotAnExpression:
        return None
    names = sorted({n.id for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Name)} - set(_CONSTANTS))
    draw = random.Random("\0".join(sorted((one, other))))
    agreed = 0
    for _ in range(3 * _POINTS):
        point = {name: Fraction(draw.randint(1, 10**6), draw.randint(1, 10**3)) for name in names}
        try:
            pair = [_value(tree, point) for tree in trees]
        except (ZeroDivisionError, OverflowError, ValueError):
            continue
        if not _equal(*pair):
            return False
        agreed += 1
        if agreed == (_POINTS if names else 1):
            return True
    return True if agreed else None


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number: `1,200`, `3/4`, `-2.5e3`, `75%`, `\\frac{1}{2}`."""
    percent = text.strip().removesuffix("%").removesuffix("\\")
    try:
        value = _value(parse(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", percent)), {})
    except (NotAnExpression, ZeroDivisionError, OverflowError, ValueError, KeyError):
        return None
    if not isinstance(value, Fraction):
        return None
    return value / 100 if text.strip().endswith("%") else value


def parse(text: str) -> ast.expr:
    """The tree of an expression in plain or LaTeX notation. Raises NotAnExpression."""
    if len(text) > _MOST_CHARS:
        raise NotAnExpression("too long")
    try:
        tree = ast.parse(_plain(text), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NotAnExpression(str(error)) from None
    nodes = list(ast.walk(tree))
    if len(nodes) > _MOST_NODES or not all(map(_allowed, nodes)):
        raise NotAnExpression("more than arithmetic")
    return tree


def _plain(text: str) -> str:
    """Python's notation: fractions, roots and powers written out, products made explicit."""
    text = (
        text.strip()
        .strip("$")
        .replace("\\left", "")
        .replace("\\right", "")
        .replace("\\!", "")
        .replace("\\,", "")
        .replace("\\ ", "")
    )
    text = text.replace("−", "-").replace("×", "*").replace("·", "*").replace("÷", "/").replace("π", "pi").replace("√", "sqrt")
    text = re.sub(r"\\(?:cdot|times)(?![a-z])", "*", text).replace("\\div", "/")
    text = re.sub(r"\\[dt]?frac\s*(\d)\s*(\d)", r"(\1)/(\2)", text)
    for _ in range(_MOST_NODES):
        shorter = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
        shorter = re.sub(r"\\sqrt\s*\[(\d+)\]\s*\{([^{}]*)\}", r"((\2)**(1/\1))", shorter)
        shorter = re.sub(r"\\(?:text|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", shorter)
        shorter = re.sub(r"(?<!frac)(?<!\})\{([^{}]*)\}", r"(\1)", shorter)
        if shorter == text:
            break
        text = shorter
    text = re.sub(r"\\([A-Za-z]+)", r" \1 ", text).replace("^", "**")
    return _products(text)


def _products(text: str) -> str:
    """`2x(y)` as `2*x*(y)`."""
    pieces = re.findall(r"\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+|[A-Za-z]+(?:_\d)?|\*\*|\S", text)
    words = [word for piece in pieces for word in (_split(piece) if piece[0].isalpha() else [piece])]
    out = list[str]()
    for word in words:
        starts = word[0].isalnum() or word[0] in ".("
        ends = bool(out) and (out[-1][-1].isalnum() or out[-1][-1] in ".)")
        if starts and ends and out[-1] not in _FUNCTIONS:
            out.append("*")
        out.append(f"({word})" if starts and word[0] != "(" and out and out[-1] in _FUNCTIONS else word)
    return " ".join(out)


def _split(piece: str) -> list[str]:
    """`xsin` as x and sin; each other letter is a variable."""
    return [match[0] for match in _WORDS.finditer(piece)]


def _allowed(node: ast.AST) -> bool:
    match node:
        case ast.Constant():
            return isinstance(node.value, int | float) and not isinstance(node.value, bool)
        case ast.Call():
            return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and len(node.args) == 1 and not node.keywords
        case ast.Name() | ast.BinOp() | ast.UnaryOp() | ast.Load():
            return True
    return isinstance(node, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.Pow | ast.USub | ast.UAdd)


def _value(tree: ast.expr, point: Mapping[str, Fraction]) -> Number:
    match tree:
        case ast.Constant():
            return Fraction(str(tree.value))
        case ast.Name():
            return point[tree.id] if tree.id in point else _CONSTANTS[tree.id]
        case ast.UnaryOp():
            inner = _value(tree.operand, point)
            return -inner if isinstance(tree.op, ast.USub) else inner
        case ast.Call():
            return _called(tree, point)
        case ast.BinOp():
            return _bounded(_combined(tree.op, _value(tree.left, point), _value(tree.right, point)))
    raise ValueError(type(tree).__name__)


def _called(tree: ast.Call, point: Mapping[str, Fraction]) -> Number:
    inner, name = _value(tree.args[0], point), tree.func.id if isinstance(tree.func, ast.Name) else ""
    if isinstance(inner, Fraction) and name == "abs":
        return abs(inner)
    if isinstance(inner, Fraction) and name == "sqrt" and inner >= 0:
        root = Fraction(math.isqrt(inner.numerator), math.isqrt(inner.denominator))
        if root * root == inner:
            return root
    return _FUNCTIONS[name](complex(inner))


def _combined(operator: ast.operator, left: Number, right: Number) -> Number:
    if isinstance(operator, ast.Pow):
        return _power(left, right)
    if not (isinstance(left, Fraction) and isinstance(right, Fraction)):
        left, right = complex(left), complex(right)
    if isinstance(operator, ast.Add):
        return left + right
    if isinstance(operator, ast.Sub):
        return left - right
    return left * right if isinstance(operator, ast.Mult) else left / right


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        size = max(base.numerator.bit_length(), base.denominator.bit_length()) * abs(exponent.numerator)
        if size <= _MOST_BITS:
            return base**exponent.numerator
    return complex(base) ** complex(exponent)


def _bounded(value: Number) -> Number:
    if isinstance(value, Fraction) and max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        return complex(value)
    if isinstance(value, complex) and not (math.isfinite(value.real) and math.isfinite(value.imag)):
        raise OverflowError
    return value


def _equal(one: Number, other: Number) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return cmath.isclose(complex(one), complex(other), rel_tol=_DIGITS, abs_tol=1e-12)
