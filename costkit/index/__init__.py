"""Which stored questions are nearest to this one: vectors on disk, shared by processes, searched exactly in memory.

An index finds keys and never answers: whoever asks looks the key up in the store, whose entry says whether it may still
be served. Who asks (the scope) and everything but the meaning (the namespace) are partitions: no search crosses them.

>>> import pathlib, tempfile
>>> import numpy as np
>>> index = Index(pathlib.Path(tempfile.mkdtemp()))
>>> index.add("acme", "ns", Row("key-1", added=0.0), np.array([1.0, 0.0], np.float32))
True
>>> found = index.search("acme", "ns", np.array([0.8, 0.6], np.float32), now=1.0)
>>> [(row.key, round(float(s), 2)) for row, s in zip(found.rows, found.similarities)]
[('key-1', 0.8)]
>>> index.search("globex", "ns", np.array([1.0, 0.0], np.float32), now=1.0).rows
()
>>> index.close()
"""

from __future__ import annotations

from costkit.index.index import Index
from costkit.index.rows import Row
from costkit.index.space import Found

__all__ = ["Found", "Index", "Row"]
