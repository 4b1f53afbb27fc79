"""The process of the tests is an ordinary one: gevent has patched nothing in it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from gevent.monkey import is_module_patched

TESTS = Path(__file__).resolve().parents[1]
IMPORT = re.compile(r"""^\s*(import locust\b|from locust\b|.*importorskip\(\s*["']locust)""", re.MULTILINE)


def test_no_test_file_imports_locust() -> None:
    """Importing locust patches sockets and threads of the whole process, so only processes of their own do."""
    assert "locust" not in sys.modules
    assert not any(is_module_patched(name) for name in ("socket", "threading", "time", "subprocess"))


def test_no_test_file_would_import_locust_later() -> None:
    """Nor does a test that another command collects: only locust files of the benchmarks may name it."""
    files = sorted(TESTS.rglob("test_*.py")) + sorted(TESTS.rglob("conftest.py"))
    assert len(files) > 50
    assert [str(file) for file in files if IMPORT.search(file.read_text("utf-8"))] == []
