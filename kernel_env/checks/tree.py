"""Names in a syntax tree: what binds them, and what path they stand for. Walks are iterative: the depth of the tree is its author's
choice."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def aliases_of(nodes: Sequence[ast.AST]) -> dict[str, str]:
    """Local name to dotted path, for imports anywhere and plain assignments of such a path. `path.*` for star imports."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for name in node.names:
                found[name.asname or name.name.partition(".")[0]] = name.name if name.asname else name.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                key = f"{node.module}.*" if name.name == "*" else name.asname or name.name
                found[key] = f"{node.module}.{name.name}"
    for node in nodes:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            root, _, rest = path_of(node.value).partition(".")
            if root in found and node.targets[0].id not in found:
                found[node.targets[0].id] = f"{found[root]}.{rest}" if rest else found[root]
    return found


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run on import, in order; those inside `if`, `try`, `with` and loops too, but no `__main__` block."""
    stack = tree.body[::-1]
    while stack:
        statement = stack.pop()
        if isinstance(statement, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(statement.test)):
            stack.extend(statement.orelse[::-1])
        elif isinstance(statement, (ast.If, ast.Try, ast.With, ast.For, ast.While)):
            handlers = statement.handlers if isinstance(statement, ast.Try) else []
            lists = [statement.body, *(h.body for h in handlers)]
            lists += [getattr(statement, name, []) for name in ("orelse", "finalbody")]
            stack.extend(inner for body in reversed(lists) for inner in reversed(body))
            yield from _headers(statement)
        else:
            yield statement


def _headers(statement: ast.If | ast.Try | ast.With | ast.For | ast.While) -> Iterator[ast.stmt]:
    """What runs at its head, where names may be bound too, as statements of their own."""
    heads: list[tuple[ast.expr | None, ast.expr]] = []
    if isinstance(statement, (ast.If, ast.While)):
        heads = [(None, statement.test)]
    elif isinstance(statement, ast.For):
        heads = [(statement.target, statement.iter)]
    elif isinstance(statement, ast.With):
        heads = [(item.optional_vars, item.context_expr) for item in statement.items]
    for target, value in heads:
        yield ast.copy_location(ast.Assign([target], value) if target else ast.Expr(value), value)


def path_of(node: ast.AST) -> str:
    """`a.b.c` for a chain of attributes on a name, or on a module that `import_module` gives by name, else ""."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        function, module = node.func, node.args[0].value
        by_name = getattr(function, "attr", getattr(function, "id", "")) == "import_module"
        return ".".join([module, *reversed(names)]) if by_name and isinstance(module, str) else ""
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def bound_names(statement: ast.stmt) -> set[str]:
    """Module-level names that `statement` binds, those that a function declares `global` included."""
    names = {name for n in ast.walk(statement) if isinstance(n, ast.Global) for name in n.names}
    if isinstance(statement, DEFINITIONS):
        return names | {statement.name}
    return names | {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
