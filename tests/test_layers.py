"""The house: who may import whom, and what may not be imported at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "costkit"
FLOORS = """
call errors
key codec folder tokens usage prices stats
store ledger
judges bound upstream
exact
flow plan
flight
session
drive
wrapped
kit
__init__
gold report testing
cli
""".strip().splitlines()
FLOOR = {module: number for number, line in enumerate(FLOORS) for module in line.split()}
BANNED_IMPORTS = {"pickle", "marshal", "shelve", "socket", "http", "urllib", "socketserver", "ssl"}
BANNED_CALLS = {"eval", "exec"}
HEAVY = "genai_prices pydantic tiktoken openai rich matplotlib locust gevent bpe_openai"


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Dotted names imported by a file, relative ones made absolute."""
    package = ("costkit", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


FILES = sorted(PACKAGE.rglob("*.py"))


def test_the_test_sees_the_package() -> None:
    """The files and imports that the other tests here judge are really found."""
    assert len(FILES) > 15
    assert "costkit.store.Entry" in set(imports(PACKAGE / "flow.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    """A module imports only from lower floors (or from its own folder)."""
    own = module_of(path)
    if own == "__main__":
        return
    assert own in FLOOR, f"say in tests/test_layers.py on which floor {own} lives"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "costkit" and rest:
            part = rest.split(".")[0]
            other = part if part in FLOOR else "__init__"
            lower = FLOOR.get(other, 99) < FLOOR[own]
            assert other == own or lower, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_that_runs_data_or_opens_sockets(path: Path) -> None:
    """No pickle, marshal, shelve, eval, exec, socket, http or urllib in costkit/."""
    assert not {name.split(".")[0] for name in imports(path)} & BANNED_IMPORTS
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS, f"{path.name}:{node.lineno}"


def test_import_is_light() -> None:
    """`import costkit` pulls in none of the heavy packages."""
    code = f"import costkit, sys; print(*(set({HEAVY.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
