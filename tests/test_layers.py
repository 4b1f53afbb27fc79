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
call errors forks texts
key codec folder tokens usage prices stats marks
secret budget
disk epochs
store ledger lease embed index
judges bound upstream
exact semantic
effects plan scope
savings
written flight reserve
flow
session
refresh
ports
beside
drive
wrapped calls
wrap certify
kit
__init__
gold report testing
replay
cli
""".strip().splitlines()
FLOOR = {module: number for number, line in enumerate(FLOORS) for module in line.split()}
BANNED = """
pickle cPickle _pickle marshal shelve dill cloudpickle joblib code codeop runpy ctypes
socket http urllib socketserver ssl ftplib smtplib poplib imaplib telnetlib xmlrpc requests aiohttp httpx httpx2
"""
BANNED_IMPORTS = set(BANNED.split())
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "globals"}
# Methods that run what a file says: yaml.load, numpy.load, pandas.read_pickle, and diskcache's own doors to pickle.
BANNED_METHODS = {
    "loads": {"pickle", "marshal"},
    "load": {"yaml", "np", "numpy", "torch", "joblib", "pickle"},
}
BANNED_NAMES = {
    "read_pickle",
    "to_pickle",
    "JSONDisk",
    "FanoutCache",
    "Deque",
    "memoize",
    "unsafe_load",
    "full_load",
}
# The words that name modules for an import at run time: each place where one is asked for by name.
IMPORTERS = {"cli/common.py": "the function that the command line was told to call"}
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
    """No pickle, marshal, shelve, eval, exec, compile, import by text, socket or HTTP client in costkit/."""
    assert banned(path.read_text(), str(path.relative_to(PACKAGE))) == []


def banned(text: str, name: str) -> list[str]:
    """What a file holds that no file of ours may."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in BANNED_IMPORTS]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found += [node.module or ""] if (node.module or "").split(".")[0] in BANNED_IMPORTS else []
        elif isinstance(node, ast.Name) and node.id in BANNED_CALLS | BANNED_NAMES:
            found.append(node.id)
        elif isinstance(node, ast.Attribute):
            of = node.value.id if isinstance(node.value, ast.Name) else ""
            bad = node.attr in BANNED_NAMES or of in BANNED_METHODS.get(node.attr, ()) or of == "builtins"
            found += [f"{of}.{node.attr}"] if bad else []
            if node.attr == "import_module" and name not in IMPORTERS:
                found.append("import_module")
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import http.client", "from urllib.request import urlopen",
        "eval('1')", "run = exec", "compile(x, '', 'exec')", "__import__(name)", "yaml.load(f)", "np.load(f)",
        "import importlib\nimportlib.import_module(name)", "diskcache.JSONDisk", "import builtins\nbuiltins.eval",
    ],
)  # fmt: skip
def test_what_is_banned_is_seen(text: str) -> None:
    """The search finds each of the things it is for."""
    assert banned(text, "some.py")


def test_nothing_of_diskcache_that_unpickles() -> None:
    """What diskcache would pickle, unpickle or open, our Disk does itself: no method of its parent's is left."""
    from costkit.disk import SealedCache, SealedDisk

    ours, theirs = vars(SealedDisk), vars(SealedDisk.__mro__[1])
    doors = {name for name, value in theirs.items() if callable(value) and not name.startswith("__")}
    assert doors - ours.keys() <= {"hash", "filename", "_write"}, "a door of diskcache's that we do not close"
    for uncalled in ("filename", "_write"):  # reached only from the parent's store(), which is ours
        users = [
            n for n, v in theirs.items() if uncalled in getattr(getattr(v, "__code__", None), "co_names", ())
        ]
        assert set(users) <= {"store"}
    assert {"_con", "reset", "volume"} <= vars(SealedCache).keys()


def test_import_is_light() -> None:
    """`import costkit` pulls in none of the heavy packages."""
    code = f"import costkit, sys; print(*(set({HEAVY.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
