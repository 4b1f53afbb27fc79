"""The semantic tier: the stored answer to a call that means the same, under a bound the user sets.

settings    what a user writes: ``costkit.semantic("question")``
claimed     the text of a call whose meaning may stand for it, and the namespace that nothing leaves
features    what is known of a candidate beside its neighbours: the gate's score is made of it
pool        encoder, index and gate of one wrapped function at work
"""

from __future__ import annotations

from costkit.semantic.settings import Semantic, semantic

__all__ = ["Semantic", "semantic"]
