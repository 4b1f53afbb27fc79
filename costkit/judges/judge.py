"""What a judge is: it says whether a served answer is as good as the reference answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import ConfigError, CostkitError, JudgeError

__all__ = ["Judge", "unboxed"]


@dataclass(frozen=True, slots=True)
class Judge:
    """A judge of answers; made by the functions of :mod:`costkit.judges`.

    Its flags count as errors, right or not. What it misses is covered by its sensitivity: the share of wrong answers
    that it flagged on gold (``caught`` of ``wrong``), of which the lower limit counts. A judge whose word is what
    right means (``exact``: the user's own definition of equality) misses nothing.

    Attributes:
        name: what reports call it.
        id: changes when the judge's code or settings do, so that a certificate is never another judge's.
        exact: its word is what right means.
        caught: of the wrong answers of gold, how many it flagged.
        wrong: how many wrong answers gold had; 0, it was not measured.
    """

    name: str
    id: str
    exact: bool = False
    caught: int = 0
    wrong: int = 0
    says: Callable[[Any, Any, Any], bool] | None = field(default=None, repr=False)
    form: Callable[[Any], str | None] | None = field(default=None, repr=False)
    score: Callable[[Any, Any], Any] | None = field(default=None, repr=False)

    @property
    def risk(self) -> Literal["wrong", "drop"]:
        """What it measures: answers that are wrong, or how far a score drops."""
        return "wrong" if self.score is None else "drop"

    @property
    def measured(self) -> bool:
        """Whether its sensitivity is known: from gold, or because its word is what right means."""
        return self.exact or self.wrong > 0

    def compare(self, served: Any, reference: Any, question: Any = None) -> bool:
        """Whether the served answer is as good as the reference.

        Raises:
            JudgeError: the judge failed or gave no verdict; the answer then counts as wrong.
        """
        if self.score is not None:
            return self.loss(served, reference, question) <= 0
        try:
            if self.says is not None:
                return self.says(served, reference, question)
            return self._form(served) == self._form(reference)
        except Exception as exc:
            raise self._failed(exc) from exc

    def loss(self, served: Any, reference: Any, question: Any = None) -> float:
        """How much worse the served answer is: 0 or 1, or for :func:`drop` the drop of its score, in [-1, 1].

        Raises:
            JudgeError: as :meth:`compare`.
        """
        if self.score is None:
            return float(not self.compare(served, reference, question))
        try:
            return self._score(reference, question) - self._score(served, question)
        except Exception as exc:
            raise self._failed(exc) from exc

    def group(self, answer: Any) -> str | None:
        """A digest by which equal answers are known without asking: equal digests are surely the same answer.

        None where this judge has no such form, or the answer none under it.
        """
        if self.form is None:
            return None
        try:
            form = self.form(answer)
        except Exception:  # noqa: BLE001 - an answer that cannot be judged is like no other
            return None
        if form is None:
            return None
        return hashlib.sha256(f"{self.id}\n{form}".encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def sensitivity(self, confidence: float = 0.95) -> float:
        """The lower exact limit of the share of wrong answers that it flags; 0 where it was not measured.

        >>> Judge("mine", "1", caught=59, wrong=59).sensitivity(), Judge("mine", "1").sensitivity()
        (0.950..., 0.0)
        """
        if self.exact:
            return 1.0
        from ..stats import binomial_limits  # numpy is loaded only where it is needed

        return binomial_limits(self.caught, self.wrong, confidence, sides=1)[0]

    def _form(self, answer: Any) -> str:
        form = None if self.form is None else self.form(answer)
        if form is None:
            raise JudgeError("it has no form for this answer")
        return form

    def _score(self, answer: Any, question: Any) -> float:
        if self.score is None:
            raise ConfigError(f"judge {self.name} has no score")
        score = unboxed(self.score(answer, question))
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not number or not 0 <= score <= 1:
            shown = f"{float(score):g}" if number else type(score).__name__
            raise JudgeError(f"a score is {shown}: return a number from 0 (worst) to 1 (best)")
        return float(score)

    def _failed(self, exc: Exception) -> JudgeError:
        """What others raise may hold an answer or a key, so only costkit's own words are repeated."""
        why = str(exc) if isinstance(exc, CostkitError) else f"it raised {type(exc).__name__}"
        return JudgeError(f"judge {self.name}: {why}")


def unboxed(value: Any) -> Any:
    """A number or bool that numpy or torch wraps, as Python's own.

    >>> import numpy as np
    >>> unboxed(np.float32(0.5)), unboxed(True)
    (0.5, True)
    """
    plain = value is None or isinstance(value, bool | int | float | str)
    item = None if plain else getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value
