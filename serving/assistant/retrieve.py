"""Passages ranked for a question by BM25 (the bm25s library), over what one tenant may see."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from serving.assistant.documents import Passage

_COMMON = """
a about am an and any are as at be been but by can could did do does for from get got had has have he hi
how i if in into is it its just like me my of on or our please so some than thanks that the their them
then there these they this to too up us was we were what when where which who why will with would you
your
"""
STOPWORDS = frozenset(_COMMON.split())
PER_ARTICLE = 2


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage and its BM25 score (no unit, above 0)."""

    passage: Passage
    score: float


def terms(text: str) -> list[str]:
    """Search terms: lower case, no stop words, no thousands separators, plural and -ing/-ed endings cut.

    >>> terms("How do I get refunds of $1,200 for the cancelled plans?")
    ['refund', '1200', 'cancel', 'plan']
    """
    folded = unicodedata.normalize("NFKC", text).lower()
    folded = re.sub(r"(?<=\d),(?=\d{3})", "", folded.replace("e-mail", "email"))
    folded = re.sub(r"(\d)\s*(tb|gb|mb|%)", r"\1 \2", folded)
    words = re.findall(r"\d+(?:\.\d+)*|[^\W\d_]+(?:'s)?|%", folded)
    return [_stem(w.removesuffix("'s")) for w in words if w.removesuffix("'s") not in STOPWORDS]


def _stem(word: str) -> str:
    """A light stemmer, applied to articles and questions alike; it need not give real words."""
    if word.isdigit() or len(word) < 4:
        return word
    for ending, rest in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith(("ss", "us", "is")):
            word = word[: -len(ending)] + rest
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "aeiousz":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > 4 else word


def _all_terms(passage: Passage) -> set[str]:
    return set(terms(f"{passage.title} {passage.heading} {passage.text}"))


def _shortened(word: str) -> set[str]:
    return {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}


class Index:
    """BM25 over passages; titles and headings are searched too, a word unknown to them is spell-checked.

    A word of five letters or more that no passage holds is read as the most frequent word one edit or swap
    away. Equal scores keep the order of the passages, so one set of documents always gives one ranking.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        import bm25s

        self.passages = tuple(passages)
        rows = [terms(f"{p.title} {p.title} {p.heading} {p.text}") for p in self.passages]
        self._bm25 = bm25s.BM25(k1=1.5, b=0.75, method="lucene", dtype="float64")
        self._bm25.index(rows, show_progress=False)
        self._counts = Counter(term for row in rows for term in row)
        self._frequency = Counter(term for row in rows for term in set(row))
        self._near: dict[str, list[str]] = {}
        for word in sorted(self._counts, key=lambda w: (-self._counts[w], w)):
            if len(word) >= 4 and word.isalpha():
                for short in _shortened(word):
                    self._near.setdefault(short, []).append(word)

    def query(self, question: str) -> list[str]:
        """The question's terms as the index knows them; terms it cannot know are left out."""
        known: list[str] = []
        for term in terms(question):
            if term in self._counts:
                known.append(term)
            elif len(term) >= 5 and term.isalpha():
                near = [w for short in sorted(_shortened(term)) for w in self._near.get(short, ())]
                known.extend(sorted(near, key=lambda w: (-self._counts[w], w))[:1])
        return known

    def search(self, question: str, k: int) -> tuple[Hit, ...]:
        """The best ``k`` passages, at most ``PER_ARTICLE`` of one article; none if no word is shared."""
        query = self.query(question)
        if not query:
            return ()
        # Rounded: the last bits of a float sum differ between machines and must not swap two passages.
        scores = [round(float(s), 6) for s in self._bm25.get_scores(query)]
        order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
        return tuple(_spread((Hit(self.passages[i], scores[i]) for i in order if scores[i] > 0), k))

    def covers(self, question: str, passages: Iterable[Passage]) -> bool:
        """Whether one of the passages shares two of the question's search terms, or its only one."""
        query, needed = set(self.query(question)), min(2, len(set(terms(question))))
        return needed > 0 and any(len(query & _all_terms(p)) >= needed for p in passages)

    def narrow(self, question: str, passages: Sequence[Passage], n: int) -> tuple[Passage, ...]:
        """The passages cut to their ``n`` sentences nearest to the question, in the order they came in.

        A sentence counts the rarity of the terms it shares with the question, and 0.3 of it for terms that
        only its title or heading shares, so that "It costs $99." under "Restore drive" is found.
        """
        query = sorted(set(self.query(question)))
        rarity = {t: math.log(1 + len(self.passages) / (1 + self._frequency[t])) for t in query}
        rated: list[tuple[float, int, int]] = []
        for i, passage in enumerate(passages):
            above = set(terms(f"{passage.title} {passage.heading}"))
            for j, sentence in enumerate(passage.sentences):
                here = set(terms(sentence))
                score = sum(rarity[t] * (1.0 if t in here else 0.3 if t in above else 0.0) for t in query)
                rated.append((-round(score - 0.01 * i, 6), i, j))
        best = {(i, j) for _, i, j in sorted(rated)[:n]}
        cut = [
            replace(p, sentences=tuple(s for j, s in enumerate(p.sentences) if (i, j) in best))
            for i, p in enumerate(passages)
        ]
        return tuple(p for p in cut if p.sentences)


def _spread(hits: Iterable[Hit], k: int) -> list[Hit]:
    taken: Counter[str] = Counter()
    best: list[Hit] = []
    for hit in hits:
        if len(best) == k:
            break
        if taken[hit.passage.article] < PER_ARTICLE:
            taken[hit.passage.article] += 1
            best.append(hit)
    return best
