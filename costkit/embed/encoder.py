"""An encoder: loaded on first use, checked at every use, and asked only for texts it has not seen lately."""

from __future__ import annotations

import hashlib
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from costkit import forks
from costkit.errors import EncoderError

__all__ = ["MOST_CHARS", "Encoder", "Model", "Vectors"]

Vectors = npt.NDArray[np.float32]
"""float32, shape (n, dimension) or (dimension,); each vector of length 1."""

MOST_CHARS = 200_000
_REMEMBERED = 16 << 20  # bytes of vectors kept, about 10,000 of MiniLM's
_PROBE = "How long do refunds take?"


@dataclass(frozen=True, slots=True)
class Model:
    """A model that is loaded: ``id`` is its name, build and quantisation, ``dimension`` None until it has spoken."""

    id: str
    dimension: int | None
    encode: Callable[[list[str]], Any]


class Encoder:
    """Texts into unit vectors. Safe to share between threads, if the model is.

    The vectors of texts seen lately are kept in memory under a digest of the text, never under the text.
    """

    def __init__(
        self, name: str, load: Callable[[], Model], *, id: str | None = None, dimension: int | None = None
    ) -> None:
        self.name = name
        self._load, self._id, self._dimension = load, id, dimension
        self._model: Model | None = None
        self._failed: EncoderError | None = None
        self._recent: OrderedDict[bytes, Vectors] = OrderedDict()
        self._loading, self._lock = threading.Lock(), threading.Lock()

    @property
    def id(self) -> str:
        """Name, build, quantisation and dimension: vectors under another id are not comparable with these.

        Raises:
            EncoderError: it takes loading the model to know, and that failed.
        """
        return self._id if self._id is not None else f"{self._loaded().id} d{self.dimension}"

    @property
    def dimension(self) -> int:
        """How many numbers a vector has; a callable is asked for one vector to find out.

        Raises:
            EncoderError: as :meth:`encode`.
        """
        if self._dimension is None:
            known = self._loaded().dimension
            return len(self.one(_PROBE)) if known is None else known
        return self._dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        """One unit vector a text: float32, shape (texts, dimension), a fresh array.

        Raises:
            EncoderError: a text is too long, the model cannot be loaded, it raised, or what it returned is no finite,
                nonzero vector of the same dimension for each text. The message names the encoder and no text.
        """
        digests = [self._digest(text) for text in texts]
        found = self._remembered(digests)
        missing = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in found}
        if missing:
            made = self._made(list(missing.values()))
            found |= dict(zip(missing, made, strict=True))
            self._remember(missing, found)
        if not digests:
            return np.empty((0, self.dimension), np.float32)
        return np.stack([found[digest] for digest in digests])

    def one(self, text: str) -> Vectors:
        """The unit vector of one text: float32, shape (dimension,), read-only.

        Raises:
            EncoderError: as :meth:`encode`.
        """
        digest = self._digest(text)
        found = self._remembered([digest])
        if not found:
            found = {digest: self._made([text])[0]}
            self._remember([digest], found)
        return found[digest]

    def after_fork(self) -> None:
        """Another thread of the parent may have held a lock."""
        self._loading, self._lock = threading.Lock(), threading.Lock()

    def __repr__(self) -> str:
        return f"<Encoder {self.name}>"

    def _digest(self, text: str) -> bytes:
        if type(text) is not str:
            raise EncoderError(f"encoder {self.name}: {type(text).__name__} where text is needed")
        if len(text) > MOST_CHARS:
            raise EncoderError(
                f"encoder {self.name}: a text of {len(text)} characters, at most {MOST_CHARS} can be compared"
            )
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _remembered(self, digests: Sequence[bytes]) -> dict[bytes, Vectors]:
        found = {}
        with self._lock:
            for digest in digests:
                vector = self._recent.get(digest)
                if vector is not None:
                    self._recent.move_to_end(digest)
                    found[digest] = vector
        return found

    def _remember(self, digests: Sequence[bytes] | dict[bytes, str], vectors: dict[bytes, Vectors]) -> None:
        with self._lock:
            for digest in digests:
                self._recent[digest] = vectors[digest]
            while self._recent and len(self._recent) * (self._dimension or 1) * 4 > _REMEMBERED:
                self._recent.popitem(last=False)

    def _loaded(self) -> Model:
        if self._model is None:
            with self._loading:
                if self._failed is not None:
                    raise self._failed
                if self._model is None:
                    self._model = self._first()
        return self._model

    def _first(self) -> Model:
        try:
            with forks.inside:  # a child would inherit a half imported module, locked for ever
                return self._load()
        except EncoderError as exc:
            self._failed = exc
            raise
        except Exception as exc:
            self._failed = EncoderError(
                f"encoder {self.name}: cannot be loaded ({type(exc).__name__}); install its packages anew or name "
                "another encoder"
            )
            raise self._failed from exc

    def _made(self, texts: list[str]) -> list[Vectors]:
        model = self._loaded()
        try:
            raw = model.encode(texts)
            array = np.asarray(raw)
        except EncoderError:
            raise
        except Exception as exc:
            raise EncoderError(
                f"encoder {self.name}: raised {type(exc).__name__} on {len(texts)} texts"
            ) from exc
        if inspect.iscoroutine(raw):
            raw.close()
        vectors = self._checked(array, len(texts))
        vectors.flags.writeable = False
        # A copy each: a row of the batch would keep the whole batch in memory.
        return [vectors[0]] if len(texts) == 1 else [_frozen(row) for row in vectors]

    def _checked(self, array: npt.NDArray[Any], texts: int) -> Vectors:
        """What a model returned, as unit vectors of the one dimension that this encoder has."""
        if array.dtype.kind not in "fiu":
            raise self._wrong(f"returned {array.dtype} where numbers are needed")
        if array.ndim != 2 or array.shape[0] != texts or not array.shape[1]:
            raise self._wrong(
                f"returned shape {array.shape} for {texts} texts; ({texts}, dimension) is needed"
            )
        wide = array.astype(np.float64)
        if not np.isfinite(wide).all():
            raise self._wrong("returned NaN or infinity")
        # Scaled first, so that no square of a large or small number is lost.
        largest = np.abs(wide).max(axis=1, keepdims=True)
        if not largest.all():
            raise self._wrong("returned a vector of zeros, which points nowhere")
        wide /= largest
        with self._lock:
            self._dimension = self._dimension or int(array.shape[1])
        if array.shape[1] != self._dimension:
            raise self._wrong(f"returned {array.shape[1]} numbers a text, where it has {self._dimension}")
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
        return wide.astype(np.float32)

    def _wrong(self, what: str) -> EncoderError:
        return EncoderError(f"encoder {self.name}: {what}; mend the encoder, its vectors were not used")


def _frozen(row: Vectors) -> Vectors:
    copy = row.copy()
    copy.flags.writeable = False
    return copy
