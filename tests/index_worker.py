"""A process that adds rows until it is killed, and says which are committed; for `test_index_processes.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from costkit.index import Index, Row
from tests.indexes import NOW, SECRET, vectors


def main() -> None:
    folder, who, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    index, made = Index(folder, secret=SECRET), vectors(count, 32, who)
    for number, vector in enumerate(made):
        if index.add("s", "n", Row(f"{who}-{number}", NOW), vector):
            print(number, flush=True)


if __name__ == "__main__":
    main()
