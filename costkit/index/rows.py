"""One entry of the index, and its sealed bytes."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from costkit.secret import Seal

__all__ = ["MOST_BYTES", "MOST_TRUST", "UNIT", "Row", "Vectors", "packed", "unpacked"]

Vectors = npt.NDArray[np.float32]

MOST_BYTES = 1 << 20
# added, expires, trust, then the bytes of: epoch, answer, features, vector
_HEAD = struct.Struct("<ddIIIII")
MOST_TRUST = (1 << 32) - 1
UNIT = 1e-3  # how far from 1 the length of a float32 unit vector may be


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a stored question besides its vector.

    ``key`` is the exact tier's; ``added`` and ``expires`` (None: never) are Unix seconds; ``epoch`` must equal that of
    a search; ``answer`` tells answers apart (a digest), ``features`` are the caller's own; ``trust`` counts
    confirmations.
    """

    key: str
    added: float
    expires: float | None = None
    epoch: str = ""
    answer: bytes = b""
    features: bytes = b""
    trust: int = 0


def packed(seal: Seal, space: bytes, row: Row, vector: Vectors) -> bytes:
    """The row and its vector, sealed over its space (a digest of scope and namespace), key and all fields.

    Raises:
        ValueError: the vector is no finite float32 vector of length 1, or the row is too large or has an impossible
            field.
    """
    if vector.dtype != np.float32 or vector.ndim != 1 or not units(vector[None, :])[0]:
        raise ValueError("Index.add(vector=...): a float32 vector of length 1, shape (dimension,), is needed")
    expires = math.inf if row.expires is None else row.expires
    if not math.isfinite(row.added) or math.isnan(expires) or not 0 <= row.trust <= MOST_TRUST:
        raise ValueError(
            "Index.add(row=...): added is finite, expires a number or None, trust a count from 0"
        )
    parts = (row.epoch.encode(), row.answer, row.features, np.ascontiguousarray(vector, "<f4").tobytes())
    body = b"".join((_HEAD.pack(row.added, expires, row.trust, *map(len, parts)), *parts))
    if len(body) + Seal.SIZE > MOST_BYTES or not 0 < len(row.key) <= 1000:
        raise ValueError(
            f"Index.add(row=...): {len(body)} bytes; at most {MOST_BYTES}, and a key of 1 to 1000 characters"
        )
    return seal.mark(space, row.key.encode(), body) + body


def unpacked(seal: Seal, space: bytes, key: str, sealed: bytes) -> tuple[Row, bytes] | None:
    """The row and its vector's bytes (little-endian float32); None where the seal or the form does not fit."""
    body = sealed[Seal.SIZE :]
    try:
        if not seal.fits(sealed[: Seal.SIZE], space, key.encode(), body):
            return None
        added, expires, trust, *sizes = _HEAD.unpack_from(body)
        if _HEAD.size + sum(sizes) != len(body):
            return None
        epoch = _HEAD.size + sizes[0]
        answer = epoch + sizes[1]
        features = answer + sizes[2]
        row = Row(
            key,
            added,
            None if expires == math.inf else expires,
            body[_HEAD.size : epoch].decode(),
            body[epoch:answer],
            body[answer:features],
            trust,
        )
    except (struct.error, UnicodeError):
        return None
    return row, body[features:]


def units(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """Which rows of shape (n, dimension) are finite and of length 1."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        near: npt.NDArray[np.bool_] = np.abs(lengths - 1.0) <= UNIT
    return near
