"""The process of the tests is an ordinary one: gevent has patched nothing in it."""

from __future__ import annotations

import sys

from gevent.monkey import is_module_patched


def test_no_test_file_imports_locust() -> None:
    """Importing locust patches sockets and threads of the whole process, so only processes of their own do."""
    assert "locust" not in sys.modules
    assert not any(is_module_patched(name) for name in ("socket", "threading", "time", "subprocess"))
