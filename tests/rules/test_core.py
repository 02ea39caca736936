"""The core stays small: what is compiled is the Python that everybody reads, and no second form of it grows beside it.
(What a .pxd may hold: tests/core/test_modules.py.)
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

from proxy.core.modules import COMPILED

ROOT = Path(__file__).resolve().parents[2]
MOST = 2835
"""Lines of code in the modules that are compiled, all together. Lower it with what goes; what does not run for each
message or connection belongs in a module that is not compiled."""
MOST_PYX = 200
"""Lines of the one module that exists twice, its comments too."""
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """Lines that are no comment, not blank, and no part of a docstring (of a module, class, function, attribute)."""
    code = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            code -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(code)


def test_the_core_does_not_grow() -> None:
    lines = {module: code_lines((ROOT / f"{module.replace('.', '/')}.py").read_text()) for module in COMPILED}
    assert sum(lines.values()) <= MOST, lines


def test_one_module_exists_twice_and_it_is_small() -> None:
    [second] = ROOT.glob("proxy/**/*.pyx")
    assert second == ROOT / "proxy/core/syscalls.pyx"
    assert len(second.read_text().splitlines()) < MOST_PYX


def test_what_counts() -> None:
    assert code_lines('"""A module.\n\nMore of it.\n"""\n\n# Why.\nA = 1  # unit\n"""Of A."""\n') == 1
    assert code_lines('def f(\n    a: int,\n) -> str:\n    """Say it."""\n\n    return """two\n    lines"""\n') == 5
    assert code_lines("") == 0
