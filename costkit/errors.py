"""Every error costkit raises on its own account, as one tree.

    CostkitError
    ├── ConfigError          the program is wrong; mend the code or the settings
    │   ├── ScopeError         who may share answers was not said
    │   ├── UnkeyableArgument  an argument has no canonical form
    │   ├── FolderError        the folder cannot be used (foreign, read-only, no folder)
    │   ├── LedgerVersionError the ledger was written by a newer costkit
    │   ├── GoldError          a gold file is broken
    │   ├── UncountableInput   a prompt's tokens cannot be counted, and a budget needs them
    │   └── MissingExtra       an optional package is not installed
    ├── UnknownPrice         no price is known for this model
    ├── EncoderError         an encoder gave no usable vector for a text
    ├── JudgeError           a judge gave no verdict on an answer
    ├── UsageError           a provider's usage numbers contradict each other
    ├── StreamLost           the stream that this one was following was left by its reader
    ├── RecentFailure        the identical call failed a moment ago and is not made again yet
    ├── BudgetExceeded       this call may cost more than a budget has left; nothing was spent
    └── BudgetUnavailable    a budget is set and cannot be checked, so nothing is spent

Errors of the user's own function are never wrapped: they pass through unchanged.
"""

from __future__ import annotations

__all__ = [
    "BudgetExceeded",
    "BudgetUnavailable",
    "ConfigError",
    "CostkitError",
    "EncoderError",
    "FolderError",
    "GoldError",
    "JudgeError",
    "LedgerVersionError",
    "MissingExtra",
    "RecentFailure",
    "ScopeError",
    "StreamLost",
    "UncountableInput",
    "UnkeyableArgument",
    "UnknownPrice",
    "UsageError",
]


class CostkitError(Exception):
    """Base of every error that costkit raises on its own account."""


class ConfigError(CostkitError):
    """The program or its settings are wrong; raised before anything is spent."""


class ScopeError(ConfigError):
    """Who may share answers was not said."""


class UnkeyableArgument(ConfigError):
    """An argument has no canonical form, so identical calls cannot be recognised."""


class FolderError(ConfigError):
    """The costkit folder cannot be used."""


class LedgerVersionError(FolderError):
    """The ledger was written by a newer costkit."""


class GoldError(ConfigError):
    """A gold file cannot be read as written."""


class UncountableInput(ConfigError):
    """The input tokens of a call cannot be counted: the message says what in its arguments is not text."""


class MissingExtra(ConfigError):
    """An optional package is not installed; the message names the extra to install."""


class UnknownPrice(CostkitError):
    """No price is known for a model; costkit never guesses one."""


class EncoderError(CostkitError):
    """An encoder cannot be loaded, or gave no usable vector for a text; nothing is compared with it."""


class JudgeError(CostkitError):
    """A judge gave no verdict: it raised, or said what is no verdict. Whoever asked counts the answer as wrong."""


class UsageError(CostkitError):
    """A provider's usage numbers contradict each other (a part larger than its whole)."""


class StreamLost(CostkitError):
    """The identical stream this one was following was left half way; call again for the whole answer."""


class RecentFailure(CostkitError):
    """The identical call failed a moment ago, and ``exact(negative=...)`` says not to make it again yet."""


class BudgetExceeded(CostkitError):
    """A call may cost more than a budget has left, so it was not made and nothing was spent.

    ``needed``, ``left`` and ``cap`` are in nano-dollars; ``resets`` is when the budget starts anew, in Unix
    seconds, None for one that never does; ``label`` says whose budget it is.
    """

    def __init__(
        self,
        message: str,
        *,
        needed: int = 0,
        left: int = 0,
        cap: int = 0,
        resets: float | None = None,
        label: str = "",
    ) -> None:
        super().__init__(message)
        self.needed, self.left, self.cap, self.resets, self.label = needed, left, cap, resets, label


class BudgetUnavailable(CostkitError):
    """A budget is set and the ledger cannot be read or written, so nothing may be spent."""
