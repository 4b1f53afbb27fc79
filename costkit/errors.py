"""Every error costkit raises on its own account, as one tree.

    CostkitError
    ├── ConfigError          the program is wrong; mend the code or the settings
    │   ├── ScopeError         who may share answers was not said
    │   ├── UnkeyableArgument  an argument has no canonical form
    │   ├── FolderError        the folder cannot be used (foreign, read-only, no folder)
    │   ├── LedgerVersionError the ledger was written by a newer costkit
    │   └── GoldError          a gold file is broken
    ├── UnknownPrice         no price is known for this model
    ├── UsageError           a provider's usage numbers contradict each other
    └── StreamLost           the stream that this one was following was left by its reader

Errors of the user's own function are never wrapped: they pass through unchanged.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "CostkitError",
    "FolderError",
    "GoldError",
    "LedgerVersionError",
    "ScopeError",
    "StreamLost",
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


class UnknownPrice(CostkitError):
    """No price is known for a model; costkit never guesses one."""


class UsageError(CostkitError):
    """A provider's usage numbers contradict each other (a part larger than its whole)."""


class StreamLost(CostkitError):
    """The identical stream this one was following was left half way; call again for the whole answer."""
