"""Kit: one folder, one decorator, one scope."""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .call import Outcome, new_id
from .drive import Ports
from .errors import ConfigError, ScopeError
from .exact import Exact
from .flow import Done, Request
from .folder import open_folder
from .key import digest
from .ledger import Ledger
from .plan import Plan, make_plan
from .prices import OwnGPU, Prices, Rates
from .session import Session, current, in_reference
from .store import Store
from .wrapped import Decorator

__all__ = ["Kit"]


class _Unsaid:
    """What ``scope`` is until it is said."""

    def __repr__(self) -> str:
        return "<unsaid>"


_UNSAID = _Unsaid()


class Kit:
    """One folder with the cache and the ledger, and the decorator that uses them.

    Args:
        folder: made if it does not exist, private to its owner (0700). A kit may be open in any number of
            processes and threads at once.
        prices: the user's rate card, used before the public price list: model name (or ``provider/model``, or
            a glob) to :class:`costkit.Rates` (dollars per million tokens) or :class:`costkit.OwnGPU`; or a
            ready :class:`costkit.Prices`.
        secret: seals cached answers with HMAC-SHA256, so that somebody who can write the folder cannot forge
            answers. Default: the environment variable COSTKIT_SECRET. Without one a checksum finds damage
            only.
        store_text: keep requests and responses in the ledger as text. Off by default.
        scope_labels: keep scope values (a tenant's name) readable in the ledger; False keeps a digest.
        size_limit: bytes of cached answers on disk; the oldest go first.

    Raises:
        FolderError: the folder is foreign, read-only or a file.
        LedgerVersionError: the folder was written by a newer costkit.

    >>> import costkit, tempfile
    >>> kit = Kit(tempfile.mkdtemp() + "/kit")
    >>> @kit.call(costkit.exact(ttl="1d"), scope=None)
    ... def shout(text: str) -> str:
    ...     return text.upper()
    >>> shout("hi"), shout.outcome("hi").saving
    ('HI', 'exact')
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] = "./.costkit",
        *,
        prices: Prices | Mapping[str, Rates | OwnGPU] | None = None,
        secret: str | bytes | None = None,
        store_text: bool = False,
        scope_labels: bool = True,
        size_limit: int = 1 << 30,
    ) -> None:
        self.folder: Path = open_folder(folder)
        self.prices = prices if isinstance(prices, Prices) else Prices(prices)
        self._ledger = Ledger(self.folder)
        self._store = Store(self.folder, secret=_secret(secret), size_limit=size_limit)
        self._ports = Ports(self._store, self._ledger, self._warn)
        self._text, self._labels = store_text, scope_labels
        self._scope: ContextVar[Mapping[str, Any] | None] = ContextVar("costkit_scope", default=None)
        self._names: dict[str, Plan] = {}
        self._priced: set[tuple[str, str | None]] = set()
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        _open_kits.add(self)

    def call(
        self,
        *savings: Exact,
        scope: str | Sequence[str] | _Unsaid | None = _UNSAID,
        name: str | None = None,
        version: str | None = None,
        ignore: Sequence[str] = (),
        key: Callable[..., Any] | Mapping[str, Callable[[Any], Any]] | None = None,
        model: str | None = "model",
        provider: str | None = None,
    ) -> Decorator:
        """Wrap a function that calls a model: sync or async, plain or generator, function or method.

        Args:
            savings: what may stand in for the call, e.g. ``costkit.exact(ttl="1d")``. None: it is only
                recorded.
            scope: the argument (or arguments) that say who may share answers, e.g. ``"tenant"``; taken from
                the call, then from ``kit.scope(...)``. ``scope=None``, said aloud: everybody shares.
            name: what the ledger and the keys call the function; default ``module.qualname``.
            version: change it when the function's answers should no longer be reused. Default: a digest of
                the function's own source, so that editing it (a prompt in it, say) starts afresh. What it
                *calls*, and the globals and closed-over values it reads, are not part of that.
            ignore: arguments that do not change the answer (a client, a logger).
            key: what identifies the call instead of its arguments: a callable of the same arguments, or for
                single arguments ``{"client": lambda client: client.base_url}``.
            model: the argument that names the model, if there is one; its price is checked before anything is
                spent.
            provider: the provider the price list knows the model under, where the model's name is not enough.

        Raises:
            ScopeError: scope was not said.
            ConfigError: a name in ignore or key is no argument, a saving is given twice.
        """
        if isinstance(scope, _Unsaid):
            raise ScopeError(
                'kit.call(): say who may share answers: scope="tenant" (an argument of the function), or '
                "scope=None "
                "if everybody may"
            )
        if scope is not None and not scope:
            raise ScopeError(
                "kit.call(scope=...): empty; name an argument, or say scope=None if everybody may share"
            )
        kinds = [s.kind for s in savings if isinstance(s, Exact)]
        if len(kinds) != len(savings) or len(set(kinds)) != len(kinds):
            raise ConfigError("kit.call(*savings): give each saving once, e.g. costkit.exact(ttl='1d')")
        names = (scope,) if isinstance(scope, str) else scope if scope is None else _names(scope)

        def plan(fn: Callable[..., Any]) -> Plan:
            made = make_plan(
                fn, exact=savings[0] if savings else None, scope=names, name=name, version=version,
                ignore=tuple(ignore), key=key, model=model, provider=provider,
            )  # fmt: skip
            self._claim(made, named=name is not None)
            return made

        return Decorator(self, plan)

    @contextmanager
    def scope(self, **values: Any) -> Iterator[None]:
        """Give scope values to every call inside, e.g. ``with kit.scope(tenant="acme"):``; inner ones win.

        >>> import tempfile
        >>> kit = Kit(tempfile.mkdtemp() + "/kit")
        >>> with kit.scope(tenant="acme"):
        ...     pass
        """
        if "budget" in values:
            raise ConfigError(
                "kit.scope(budget=...): budgets are not part of this version; nothing was limited"
            )
        token = self._scope.set({**(self._scope.get() or {}), **values})
        try:
            yield
        finally:
            self._scope.reset(token)

    def bump(self, epoch: str) -> int:
        """Make every answer stored under this epoch a miss, in every process; returns the new count.

        >>> import tempfile
        >>> Kit(tempfile.mkdtemp() + "/kit").bump("handbook")
        1
        """
        count = self._store.epochs.bump(epoch)
        self._store.sync()
        return count

    def forget(self, **scope: Any) -> int:
        """Delete the cached answers of one scope, e.g. ``kit.forget(tenant="acme")``; returns how many.

        Without arguments: those of ``scope=None``.
        """
        return self._store.forget(_scope_id(scope or None))

    def health(self) -> dict[str, int]:
        """What went wrong without costing an answer: damaged or unwritten entries, unrecorded calls."""
        return {**self._store.troubles, "unrecorded": self._ports.unrecorded + self._ledger.lost}

    def ledger(self) -> Any:
        """A read-only ``sqlite3.Connection`` to the record, flushed first; see :mod:`costkit.ledger`."""
        return self._ledger.read()

    def close(self) -> None:
        """Commit what is queued. A kit also does so at exit."""
        self._ports.close()
        self._ledger.close()
        self._store.close()

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _claim(self, plan: Plan, named: bool) -> None:
        with self._lock:
            other = self._names.get(plan.name)
            clash = other is not None and other.fn is not plan.fn and (named or plan.closed)
            if clash and other is not None and (plan.closed or _differ(plan, other)):
                raise ConfigError(
                    f"{plan.name} is wrapped twice in this kit, by functions that may differ in what they "
                    "close over; "
                    "give each its own name: kit.call(..., name=...)"
                )
            self._names[plan.name] = plan

    def _begin(self, plan: Plan, arguments: Mapping[str, Any]) -> Session:
        """Everything that is decided before the flow starts; raises before anything is spent."""
        started, wall = time.perf_counter(), time.time()
        store, exact, role = self._store, plan.exact, "call"
        if in_reference():
            exact, role = None, "reference"
        scope = self._resolve(plan, arguments)
        scope_id = _scope_id(scope)
        model = plan.model_of(arguments)
        if model is not None and (model, plan.provider) not in self._priced:
            self.prices.check(model, plan.provider)
            self._priced.add((model, plan.provider))
        key, epoch = None, ""
        if exact is not None:
            epoch = store.epoch(exact.epochs, scope_id)
            key = plan.digest(scope, arguments)
        parent = current.get()
        above = parent if parent is not None and parent.home is self else None  # rows join within one ledger
        call_id = new_id()
        request = Request(
            id=call_id,
            parent_id=None if above is None else above.request.id,
            root_id=call_id if above is None else above.request.root_id,
            name=plan.name, version=plan.version, scope=self._label(scope), key=key, exact=exact, epoch=epoch,
            stream=plan.stream, started=started, wall=wall, role=role,
            text=_texts(arguments) if self._text else None,
        )  # fmt: skip
        return Session(
            request, scope_id=scope_id, arguments=arguments, model=model, provider=plan.provider,
            prices=self.prices, warn=self._warn, parent=parent, home=self,
        )  # fmt: skip

    def _finish(self, session: Session, done: Done) -> None:
        """Report to the caller's call, and raise what the function raised."""
        session.report(done)
        if done.error is not None:
            raise done.error

    def _outcome(self, session: Session, done: Done) -> Outcome[Any]:
        return Outcome(done.value, done.cost, done.latency, done.saving, session.request.id, done.ttft)

    def _resolve(self, plan: Plan, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        if plan.scope is None:
            return None
        given = self._scope.get() or {}
        found: dict[str, Any] = {}
        for name in plan.scope:
            value = arguments.get(name)
            if value is None:
                value = given.get(name)
            if value is None:
                raise ScopeError(
                    f"{plan.name}(): the scope {name!r} has no value; pass {name}=..., or call inside "
                    f"`with kit.scope({name}=...)`"
                )
            found[name] = value
        return found

    def _label(self, scope: Mapping[str, Any] | None) -> str | None:
        if scope is None:
            return None
        return json.dumps(scope, default=str, sort_keys=True) if self._labels else _scope_id(scope)

    def _warn(self, message: str) -> None:
        """Say each thing once a kit."""
        with self._lock:
            if message in self._warned or len(self._warned) > 1000:
                return
            self._warned.add(message)
        warnings.warn(f"costkit: {message}", RuntimeWarning, stacklevel=2)


def _names(scope: Sequence[str]) -> tuple[str, ...]:
    if not isinstance(scope, (list, tuple)) or not all(isinstance(name, str) for name in scope):
        raise ScopeError(
            f'kit.call(scope=...): {scope!r:.80} names no argument; say scope="tenant", or a list'
        )
    return tuple(scope)


def _differ(plan: Plan, other: Plan) -> bool:
    return other.version == plan.version and other.source != plan.source


def _scope_id(scope: Mapping[str, Any] | None) -> str:
    return "-" if scope is None else digest(scope, "scope", "", {})[:32]


def _secret(secret: str | bytes | None) -> bytes | None:
    value = os.environ.get("COSTKIT_SECRET") if secret is None else secret
    if value is None or value == "":
        return None
    raw = value.encode() if isinstance(value, str) else value
    if not isinstance(raw, bytes):
        raise ConfigError(f"Kit(secret=...): text or bytes, not {type(raw).__name__}")
    if len(raw) < 16:
        raise ConfigError("Kit(secret=...): at least 16 bytes, for example what secrets.token_hex() returns")
    return raw


def _texts(arguments: Mapping[str, Any]) -> Callable[[Any], tuple[str | None, str | None]]:
    def text(value: Any) -> tuple[str | None, str | None]:
        return _as_text(dict(arguments)), None if value is None else _as_text(value)

    return text


def _as_text(value: Any) -> str:
    """For a person to read. The call is made and paid for: whatever has no text must not cost the answer."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        return text.encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001 - a user's own __str__, a key that JSON lacks, a value that holds itself
        return f"<{type(value).__name__}>"


_open_kits: weakref.WeakSet[Kit] = weakref.WeakSet()


def _forked() -> None:
    for kit in list(_open_kits):
        kit._ports.after_fork()
        kit._store.after_fork()
        kit._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
