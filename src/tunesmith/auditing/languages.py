"""The languages of texts, by py3langid (Lui and Baldwin 2012), where a text is long enough to tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tunesmith.auditing.row_counts import RowCount

MOST_TEXTS = 5000
"""Texts whose language is identified; of more, this number is drawn."""
FEWEST_LETTERS = 40
"""Letters that a text needs: of shorter English ones, several in a hundred are taken for another language."""
SURE = 0.9
"""Probability that the identified language needs."""
CHARACTERS = 1000
"""Of a text that are read."""
NAMES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "eu": "Basque",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "gl": "Galician",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "la": "Latin",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "ms": "Malay",
    "nl": "Dutch",
    "no": "Norwegian",
    "nb": "Norwegian Bokmål",
    "nn": "Norwegian Nynorsk",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "th": "Thai",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
"""Of frequent codes of ISO 639; other languages are shown by their code."""


@dataclass(frozen=True, slots=True)
class LanguageProfile:
    """The languages of the texts in a column."""

    texts: int
    """How many were looked at."""
    drawn: bool
    """Whether these are a random part of all."""
    short: int
    """Texts with too few letters to tell."""
    undecided: int
    """Texts of which no language is sure."""
    rows: dict[str, int]
    """Texts by the language's name, the most frequent first."""
    others: RowCount
    """Texts in another language than the most frequent one."""

    @property
    def known(self) -> int:
        """Texts whose language is known."""
        return sum(self.rows.values())


def profile(ids: Sequence[str], texts: Sequence[str], seed: int) -> LanguageProfile:
    """Return the languages of texts; of more than MOST_TEXTS, of a sample drawn with the seed."""
    places = np.arange(len(texts))
    if len(texts) > MOST_TEXTS:
        places = np.sort(np.random.Generator(np.random.PCG64(seed)).permutation(len(texts))[:MOST_TEXTS])
    enough = [place for place in places.tolist() if is_long_enough(texts[place])]
    found = {place: identify(texts[place]) for place in enough}
    counts = Counter(language for language in found.values() if language is not None)
    names = {code: NAMES.get(code, code) for code, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))}
    main = next(iter(names), None)
    return LanguageProfile(
        texts=len(places),
        drawn=len(places) < len(texts),
        short=len(places) - len(enough),
        undecided=len(enough) - counts.total(),
        rows={name: counts[code] for code, name in names.items()},
        others=RowCount.of(ids[place] for place, code in found.items() if code not in (None, main)),
    )


def is_long_enough(text: str) -> bool:
    """Return whether a text has FEWEST_LETTERS letters: of scripts without spaces, half of them."""
    letters = 0
    for character in text[:CHARACTERS]:
        if character.isalpha():
            letters += 2 if character >= "\u2e80" else 1
            if letters >= FEWEST_LETTERS:
                return True
    return False


def identify(text: str) -> str | None:
    """Return the code of a text's language; None where it is not sure."""
    language, probability = _identifier().classify(text[:CHARACTERS])
    return str(language) if probability >= SURE and language != "zxx" else None


@cache
def _identifier() -> Any:
    from py3langid import langid

    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
