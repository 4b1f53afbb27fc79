"""api.py is read by type checkers and never run, not even for doctests."""

collect_ignore = ["api.py"]
