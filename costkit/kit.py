"""Kit: one folder, one decorator, one scope."""

from __future__ import annotations

import gc
import inspect
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import prices, tokens
from .budget import parse
from .calls import Calls
from .errors import ConfigError
from .folder import open_folder
from .lease import Leases
from .ledger import Ledger
from .plan import Plan, make_plan
from .ports import Ports
from .prices import OwnGPU, Prices, Rates
from .reserve import Allowance
from .savings import Pools, Saving, meaning_of, told_apart
from .scope import UNSAID, Scopes, Unsaid, scope_id, shared_by
from .secret import find as find_secret
from .store import Moment, Store, boot
from .wrapped import Decorator

if TYPE_CHECKING:
    from .certify import Certification

__all__ = ["Kit"]


C = TypeVar("C")


class Kit(Calls):
    """One folder with the cache and the ledger, and the decorator that uses them.

    Args:
        folder: made if it does not exist, private to its owner (0700). A kit may be open in any number of
            processes and threads at once.
        prices: the user's rate card, used before the public price list: model name (or ``provider/model``, or
            a glob) to :class:`costkit.Rates` (dollars per million tokens) or :class:`costkit.OwnGPU`; or a
            ready :class:`costkit.Prices`.
        secret: seals cached answers and epochs with HMAC-SHA256, so that somebody who can write the folder cannot
            forge answers; at least 16 bytes. Default: the environment variable COSTKIT_SECRET. Without one a
            checksum finds damage only.
        secret_file: a file with the secret, of your own, mode 0600, outside the folder (``costkit.secret.make`` makes
            one). Default: the file that the environment variable COSTKIT_SECRET_FILE names.
        store_text: keep requests and responses in the ledger as text. Off by default.
        scope_labels: keep scope values (a tenant's name) readable in the ledger; False keeps a digest.
        size_limit: bytes of cached answers on disk; the oldest go first.
        budget: the most that all calls through this folder may spend in a window, in every process, such as
            "100 USD/day" (hour, day, week, month, total; UTC). A call that may not fit is refused before it is made.

    Raises:
        FolderError: the folder is foreign, read-only or a file.
        LedgerVersionError: the folder was written by a newer costkit.
        ConfigError: the secret is too short, or its file is not private.

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
        secret_file: str | os.PathLike[str] | None = None,
        store_text: bool = False,
        scope_labels: bool = True,
        size_limit: int = 1 << 30,
        budget: str | list[str] | tuple[str, ...] | None = None,
    ) -> None:
        allowed = Allowance().under(parse(budget, "Kit(budget=...)"), "kit", "this folder")
        if allowed.purses:
            raise ConfigError(
                f'Kit(budget={budget!r}): say for how long, such as "100 USD/day" or "100 USD/total"'
            )
        self.folder: Path = open_folder(folder)
        self.prices = prices if isinstance(prices, Prices) else Prices(prices)
        sealing = find_secret(secret, secret_file, self.folder)
        self._ledger = Ledger(self.folder)
        self._store = Store(self.folder, secret=sealing, size_limit=size_limit)
        self._ports = Ports(self._store, self._ledger, Leases(self.folder), self._warn)
        self._pools = Pools(self.folder, sealing, self._store, self._ledger, self._warn)
        self._ports.pools = self._pools.of
        self._boot = boot()
        self._text = store_text
        self._scope: ContextVar[Mapping[str, Any] | None] = ContextVar("costkit_scope", default=None)
        self._allowed: ContextVar[Allowance] = ContextVar("costkit_allowed", default=allowed)
        self._names: dict[str, Plan] = {}
        self._scopes = Scopes(readable=scope_labels)
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        _open_kits.add(self)

    def call(
        self,
        *savings: Saving,
        scope: str | Sequence[str] | Unsaid | None = UNSAID,
        max_error: float | None = None,
        per: str | None = None,
        judge: Any = None,
        confidence: float | None = None,
        audit: float | None = None,
        name: str | None = None,
        version: str | None = None,
        ignore: Sequence[str] = (),
        key: Callable[..., Any] | Mapping[str, Callable[[Any], Any]] | None = None,
        model: str | None = "model",
        provider: str | None = None,
        budget: str | list[str] | tuple[str, ...] | None = None,
        max_cost: str | int | Callable[..., Any] | None = None,
    ) -> Decorator:
        """Wrap a function that calls a model: sync or async, plain or generator, function or method.

        Args:
            savings: what may stand in for the call, e.g. ``costkit.exact(ttl="1d"), costkit.semantic("question")``.
                None: it is only recorded. The order says nothing.
            max_error: for savings that may be wrong: the share of wrong answers you accept. It has no default.
            per: of what: ``"hit"``, the answers served (the default), or ``"request"``, all calls.
            judge: what a wrong answer is, e.g. ``costkit.judges.same_answer``. It has no default.
            confidence: each certificate is false with probability at most 1 - confidence; 0.95.
            audit: the least share of served answers that is checked by making the call; 0.05.
            scope: the argument (or arguments) that say who may share answers, e.g. ``"tenant"``; taken from
                the call, then from ``kit.scope(...)``. ``scope=None``, said aloud: everybody shares.
            name: what the ledger and the keys call the function; default ``module.qualname``.
            version: change it when the function's answers should no longer be reused. Default: a digest of
                the function's own source, so that editing it (a prompt in it, say) starts afresh. What it
                *calls* and the globals it reads are not part of that; text and numbers it closes over are.
            ignore: arguments that do not change the answer (a client, a logger).
            key: what identifies the call instead of its arguments: a callable of the same arguments, or for
                single arguments ``{"client": lambda client: client.base_url}``.
            model: the argument that names the model, if there is one; its price is checked before anything is
                spent.
            provider: the provider the price list knows the model under, where the model's name is not enough.
            budget: the most each call may spend, calls inside it included ("0.02 USD"), or this function in a window
                for each scope value ("1 USD/day"), or both in a list.
            max_cost: the most one call may cost, where its arguments do not say it: text such as "0.02 USD", a
                function of the same arguments that returns such text, or 0 for a function that spends only through
                wrapped calls inside it. Default: what ``model``, the arguments' text and the output limit
                (``max_tokens`` or the like) come to. Used only where a budget is in force.

        Raises:
            ScopeError: scope was not said.
            ConfigError: a name in ignore or key is no argument, a saving is given twice, a budget is none.
        """
        names = shared_by(scope)
        (saving, similar), budgets = told_apart(savings), parse(budget, "kit.call(budget=...)")
        given = {"max_error": max_error, "per": per, "judge": judge, "confidence": confidence, "audit": audit}
        meaning = meaning_of(similar, given)

        def plan(fn: Callable[..., Any]) -> Plan:
            made = make_plan(
                fn, exact=saving, scope=names, name=name, version=version, ignore=tuple(ignore), key=key,
                model=model, provider=provider, budget=budgets, max_cost=max_cost, meaning=meaning,
            )  # fmt: skip
            self._claim(made, named=name is not None)
            if inspect.iscoroutinefunction(fn) or inspect.isasyncgenfunction(fn):
                self._preload(made)
            return made

        return Decorator(self, plan)

    def wrap(
        self,
        client: C,
        *savings: Saving,
        max_error: float | None = None,
        per: str | None = None,
        judge: Any = None,
        confidence: float | None = None,
        audit: float | None = None,
        scope: str | Sequence[str] | Unsaid | None = UNSAID,
        name: str | None = None,
        version: str | None = None,
        ignore: Sequence[str] = (),
        provider: str | None = None,
        budget: str | list[str] | tuple[str, ...] | None = None,
        max_cost: str | int | Callable[..., Any] | None = None,
        stream_usage: bool = True,
    ) -> C:
        """The same client, of the same type, whose calls to a model take the path of ``kit.call``.

        For call sites nobody wants to touch: ``client = kit.wrap(OpenAI(), costkit.exact(ttl="1d"), scope="tenant")``.
        Takes OpenAI, AsyncOpenAI, Anthropic and AsyncAnthropic clients and those derived from them (Azure, Bedrock,
        Vertex). Answers, streams, parsed objects and errors are the SDK's own, on a hit as on a miss. The SDK's own
        retries are switched off; where a copy asks for them (``with_options(max_retries=1)``), each is a call with
        its own row. The client given is left as it is.

        Args:
            savings, max_error, per, judge, confidence, audit, scope, version, ignore, provider, budget, max_cost: as in
                :meth:`call`; the arguments of a call are the fields of its request's body, so the semantic tier is
                ``costkit.semantic("messages")`` (of OpenAI's responses "input", of its completions "prompt"; calls
                without that field and embeddings go without it). Judges and ``admit`` are shown the answer's JSON as
                a dict. A scope that is no such field comes from ``kit.scope(...)``.
            name: what the ledger calls these calls; default "openai.chat.completions" and the like.
            stream_usage: ask OpenAI-compatible servers to report a stream's usage where the call did not, and keep the
                report from the caller. False: for servers that refuse ``stream_options``.

        Raises:
            ScopeError: scope was not said.
            ConfigError: not a client that can be wrapped, or a saving's settings are wrong.
        """
        from .wrap import wrap_client

        if inspect.iscoroutinefunction(getattr(type(client), "request", None)):
            self._ports.warm("prices", prices.warm)
            self._ports.warm("tokens", tokens.warm)
        saving, similar = told_apart(savings, "kit.wrap")
        given = {"max_error": max_error, "per": per, "judge": judge, "confidence": confidence, "audit": audit}
        return wrap_client(
            self, client, exact=saving, meaning=meaning_of(similar, given, "kit.wrap"), scope=shared_by(scope),
            name=name, version=version, ignore=ignore, provider=provider, budget=parse(budget, "kit.wrap(budget=...)"),
            max_cost=max_cost, stream_usage=stream_usage,
        )  # fmt: skip

    @contextmanager
    def scope(
        self, *, budget: str | list[str] | tuple[str, ...] | None = None, **values: Any
    ) -> Iterator[None]:
        """Give scope values to every call inside, e.g. ``with kit.scope(tenant="acme"):``; inner ones win.

        ``budget`` is a hard cap: "0.05 USD" for everything inside this block (in this process), "5 USD/day" for
        everything under these scope values, in every process. Outer budgets go on holding.

        ``tag`` names a part of the traffic, ``with kit.scope(tag="checkout"):``. It does not say who may share answers;
        a gate counts the audits of each tag apart, and closes for one alone when its own alarm goes off.

        >>> import tempfile
        >>> kit = Kit(tempfile.mkdtemp() + "/kit")
        >>> with kit.scope(tenant="acme"):
        ...     pass
        """
        budgets = parse(budget, "kit.scope(budget=...)")
        given = {**(self._scope.get() or {}), **values}
        owner, label = f"scope {scope_id(values or None)}", self._scopes.label(values or None) or "this block"
        token = self._scope.set(given)
        allowed = self._allowed.set(self._allowed.get().under(budgets, owner, label))
        try:
            yield
        finally:
            self._allowed.reset(allowed)
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
        id = scope_id(scope or None)
        gone = self._store.forget(id)  # the first: from then on nothing of it is served
        self._pools.forget(id)
        return gone

    def certify(
        self,
        ask: Any,
        rows: Iterable[Any],
        *,
        seed_answers: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Certification:
        """Certify a function's gate before its first call, from a log or gold tests; nothing is called or spent.

        The rows are rehearsed for the function's own settings, every candidate labelled by its judge (one that asks
        somebody is asked), in the order of their times; where one has none they are shuffled, for files are often
        sorted. What comes of it is evidence for every process, once: a row that comes again, in whatever file, is not
        counted again. Give rows that the gate has not seen as calls, and that are like the calls to come: of others
        the certificate says nothing.

        Args:
            ask: what ``@kit.call(...)`` made of the function.
            rows: mappings of its arguments and ``answer``, and perhaps ``at`` (Unix seconds, when it was made); or
                (question, answer) pairs; or gold tests that say the whole answer (``equals``).
            seed_answers: store the answers too, so that they are served from the first call on. They must be what the
                function returns. Off: the pool fills with the calls.
            progress: called with what is being done, how much of it is done, and of how much.

        Raises:
            ConfigError: not a wrapped function, one without a lossy saving, or no row that can be used.
            EncoderError: the encoder gave no usable vectors.
        """
        from .certify import Certifier, plan_of

        plan, bound = plan_of(ask, "kit.certify(ask)")
        pool = self._pools.of(plan)
        if ask._owner is not self or pool is None:
            raise ConfigError(
                f"kit.certify(ask): {plan.name} is wrapped by another kit; call that one's certify"
            )
        now = Moment(time.time(), time.monotonic(), self._boot)
        certifier = Certifier(
            plan, bound, pool=pool, store=self._store, ledger=self._ledger, resolve=self._resolve,
            named=self._scopes.named, now=now,
        )  # fmt: skip
        return certifier.certify(rows, seed_answers=seed_answers, progress=progress)

    def warm(self) -> None:
        """Load the price table and the tokenizer now (half a second, once in a process), before an event loop runs.

        What is loaded by then is also taken out of the garbage collector's rounds (``gc.freeze``), each of which
        would stop the loop for 20 ms. Without this call an async function begins to load what its calls need when
        it is wrapped.
        """
        prices.warm()
        tokens.warm()
        gc.collect()
        gc.freeze()

    def health(self) -> dict[str, int]:
        """What went wrong without costing an answer: damaged or unwritten entries, unrecorded calls."""
        index = self._pools.troubles
        troubles = {kind: count + index.get(kind, 0) for kind, count in self._store.troubles.items()}
        return {**troubles, "unrecorded": self._ports.unrecorded + self._ledger.lost}

    def ledger(self) -> Any:
        """A read-only ``sqlite3.Connection`` to the record, flushed first; see :mod:`costkit.ledger`."""
        return self._ledger.read()

    def close(self) -> None:
        """Commit what is queued. A kit also does so at exit."""
        self._ports.close()
        self._pools.close()
        self._ledger.close()
        self._store.close()

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _preload(self, plan: Plan) -> None:
        """Loading holds the interpreter for a tenth of a second: better where it is wrapped than in its event loop."""
        self._ports.warm("prices", prices.warm)
        if plan.stream or plan.budget or self._allowed.get().windowed:
            self._ports.warm("tokens", tokens.warm)

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

    def _warn(self, message: str) -> None:
        """Say each thing once a kit."""
        with self._lock:
            if message in self._warned or len(self._warned) > 1000:
                return
            self._warned.add(message)
        warnings.warn(f"costkit: {message}", RuntimeWarning, stacklevel=2)


def _differ(plan: Plan, other: Plan) -> bool:
    return other.version == plan.version and other.source != plan.source


_open_kits: weakref.WeakSet[Kit] = weakref.WeakSet()


def _forked() -> None:
    for kit in list(_open_kits):
        for purse in kit._allowed.get().purses:
            purse.after_fork()
        kit._ports.after_fork()
        kit._store.after_fork()
        kit._pools.after_fork()
        kit._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
