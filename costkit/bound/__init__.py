"""The gate that every lossy saving passes: it serves above a threshold certified at the user's bound, and audits.

risk      the bound a user sets: how many wrong answers, of what, with what confidence
score     how likely a substitution is wrong: a small model fitted on the past, which validity never rests on
ladder    strata of that score, and how far up they may be served on the evidence there is
gate      one gate: what may be served, what is audited, what each label changes; demotion and a fresh start
"""

from __future__ import annotations

from costkit.bound.gate import Gate, Passage, Standing
from costkit.bound.risk import PER_HIT, PER_REQUEST, Bound, bound_of

__all__ = ["PER_HIT", "PER_REQUEST", "Bound", "Gate", "Passage", "Standing", "bound_of"]
