"""The savings that a decorator was given, told apart, and what of them works while calls are made.

What a lossy saving needs (judges, encoder, index, numpy) is loaded by who asks for one.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, FolderError
from .exact import Exact, exact
from .folder import kept_key
from .ledger import Ledger
from .plan import Plan
from .semantic.settings import Semantic
from .store import Store

if TYPE_CHECKING:
    from .bound.tended import Tended
    from .index import Index
    from .judges import Judge
    from .semantic.pool import Meaning, Pool

__all__ = ["Pools", "Saving", "meaning_of", "told_apart"]

Saving = Exact | Semantic

_MOST_POOLS = 256  # a program may wrap a function anew for each of its requests


def told_apart(savings: Sequence[Saving], call: str = "kit.call") -> tuple[Exact | None, Semantic | None]:
    """The saving of each kind; with the semantic tier comes the exact one, for that never errs.

    Raises:
        ConfigError: something is no saving, or one is given twice.
    """
    kinds = [s.kind for s in savings if isinstance(s, Saving)]
    if len(kinds) != len(savings) or len(set(kinds)) != len(kinds):
        raise ConfigError(f"{call}(*savings): give each saving once, e.g. costkit.exact(ttl='1d')")
    same = next((s for s in savings if isinstance(s, Exact)), None)
    similar = next((s for s in savings if isinstance(s, Semantic)), None)
    return (exact() if same is None and similar is not None else same), similar


def meaning_of(settings: Semantic | None, given: Mapping[str, Any], call: str = "kit.call") -> Meaning | None:
    """The semantic tier as this decorator means it: the saving's own settings, else the decorator's (``given``).

    Raises:
        ConfigError: the bound or the judge is missing or none, or they were given without a lossy saving.
        MissingExtra: the encoder's package is not installed.
    """
    if settings is None:
        said = [name for name, value in given.items() if value is not None]
        if said:
            raise ConfigError(
                f"{call}({said[0]}=...): only a lossy saving takes it; add one, e.g. costkit.semantic('question')"
            )
        return None
    from .bound import bound_of
    from .embed import encoder_of
    from .judges import judged
    from .semantic.pool import Meaning

    of = {name: value if (own := getattr(settings, name)) is None else own for name, value in given.items()}
    bound = bound_of(of["max_error"], of["per"], of["confidence"], of["audit"], where=call)
    judge = judged(of["judge"])
    if judge.risk != "wrong" or not judge.sensitivity():
        raise ConfigError(_unfit(judge, call))
    return Meaning(settings, bound, judge, encoder_of(settings.encoder))


def _unfit(judge: Judge, call: str) -> str:
    if judge.risk != "wrong":
        return f"{call}(judge={judge.name}): a cached answer is right or wrong; give a judge of that: same_answer"
    return (
        f"{call}(judge={judge.name}): nobody knows what it misses, so nothing could be certified; measure it on gold "
        "(judge = costkit.judges.measure(judge, cases).as_measured()), or, if its word is what right means for you, "
        "say costkit.judges.asked(judge, defines=True)"
    )


class Pools:
    """The semantic tier of each wrapped function of a kit; the index is opened by the first that has one."""

    def __init__(
        self, folder: Path, secret: bytes | None, store: Store, ledger: Ledger, warn: Callable[[str], None]
    ) -> None:
        self._folder, self._secret, self._store = folder, secret, store
        self._ledger, self._warn = ledger, warn
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._pools: dict[tuple[str, str, int], Pool] = {}
        self._tended: dict[str, Tended] = {}
        self._words: bytes | None = None

    def of(self, plan: Plan) -> Pool | None:
        """The tier of this function, if it has one. Wrapped twice, a function has two, which share their gates."""
        meaning = plan.meaning
        if meaning is None:
            return None
        place = plan.name, plan.version, id(meaning)  # no other's id: the pool holds on to it
        found = self._pools.get(place)
        if found is None:
            with self._lock:
                found = self._pools.get(place)
                if found is None:
                    found = self._pools[place] = self._made(plan, meaning)
                    if len(self._pools) > _MOST_POOLS:
                        del self._pools[next(iter(self._pools))]  # made again by its next call
        return found

    def forget(self, scope_id: str) -> None:
        """Drop the scope's stored questions; raises FolderError where they cannot be."""
        with self._lock:
            if self._index is not None or any(self._folder.glob("index*")):
                self._opened().forget(scope_id)

    @property
    def troubles(self) -> dict[str, int]:
        """What went wrong with the index, by kind."""
        return {} if self._index is None else dict(self._index.troubles)

    def after_fork(self) -> None:
        """The child has none of the parent's threads."""
        self._lock = threading.Lock()
        if self._index is not None:
            self._index.after_fork()
        for pool in self._pools.values():
            pool.after_fork()
        for tended in self._tended.values():  # of pools that were let go too
            tended.after_fork()

    def close(self) -> None:
        """Wait for judges, and write down what the index has queued."""
        for pool in list(self._pools.values()):
            pool.close()
        for tended in list(self._tended.values()):
            tended.close()
        if self._index is not None:
            self._index.close()

    def _made(self, plan: Plan, meaning: Meaning) -> Pool:
        from .semantic.pool import Pool

        return Pool(
            meaning, name=plan.name, version=plan.version, rules=_rules(plan), index=self._opened(),
            ledger=self._ledger, known=self._tended, key=self._word_key(), get=self._store.get, warn=self._warn,
            reads=plan.reads,
        )  # fmt: skip

    def _word_key(self) -> bytes:
        """What words are digested with: of the secret, else of a key that stands in the folder, beside the index."""
        if self._words is None:
            try:
                own = self._secret or kept_key(self._folder / "index.key")
            except FolderError as exc:
                self._warn(f"{exc}; what is stored now for the semantic tier is of use to this process alone")
                own = os.urandom(32)
            self._words = hashlib.sha256(b"costkit words" + own).digest()
        return self._words

    def _opened(self) -> Index:
        from .index import Index

        if self._index is None:
            self._index = Index(self._folder, secret=self._secret)
        return self._index


def _rules(plan: Plan) -> tuple[object, ...]:
    """Of the exact tier and the key, what decides whose answers may stand for a call, and how old they may be."""
    same = plan.exact
    kept = () if same is None else (same.ttl, same.life, same.epochs, same.admit)
    return plan.scope, sorted(plan.left_out), plan.key, kept
