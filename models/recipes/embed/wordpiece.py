"""WordPiece as llama.cpp does it (`llm_tokenizer_wpm_session` in src/llama-vocab.cpp), and the vocabulary for it.

Letters lose their accents and capitals, and words end at white space; every punctuation mark and ASCII symbol is a
word of its own, and so is every Chinese character, of which this vocabulary has none. A word gets "▁" in front and is
spelled by the longest pieces from the left; a piece without "▁" continues a word. What cannot be spelled is [UNK].
"""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from itertools import product

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, BEGIN, END, MASK = range(len(SPECIAL))
BEGINS = "▁"
_LETTERS = string.ascii_lowercase + string.digits
_SYLLABLES = tuple(a + b for a, b in product("bcdfghjklmnpqrstvwxyz", "aeiou"))
_FOREIGN = "ßæøłđþð"
_MARKS = string.punctuation + "‘’“”„…–—«»¿¡•€£°"


def vocabulary(sentences: Iterable[str], *, at_least: int) -> tuple[str, ...]:
    """Every word seen so often, and pieces that spell all others of the Latin alphabet."""
    seen = Counter(word for sentence in sentences for word in words(sentence))
    whole = sorted(word for word, count in seen.items() if count >= at_least)
    begins = (BEGINS + piece for piece in (*_LETTERS, *_FOREIGN, *_MARKS, *_SYLLABLES, *whole))
    return tuple(dict.fromkeys((*SPECIAL, *begins, BEGINS, *_LETTERS, *_FOREIGN, *_MARKS, *_SYLLABLES)))


def words(text: str) -> list[str]:
    made = [""]
    for written in text:
        character = unicodedata.normalize("NFD", written)[0]  # the letter, without its accents
        category = unicodedata.category(character)
        if character.isspace():
            made.append("")
        elif category.startswith("P") or (character < "\x7f" and category.startswith("S")):
            made += [character, ""]
        elif not category.startswith("C"):
            made[-1] += character.lower()
    return [word for word in made if word]


class Tokenizer:
    def __init__(self, pieces: tuple[str, ...]) -> None:
        self.pieces = pieces
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        self._longest = max(map(len, pieces))

    def __call__(self, text: str) -> list[int]:
        """The ids of a text between [CLS] and [SEP]."""
        return [BEGIN, *(piece for word in words(text) for piece in self._spell(BEGINS + word)), END]

    def _spell(self, word: str) -> list[int]:
        ids = []
        start = 0
        while start < len(word):
            ends = range(min(len(word), start + self._longest), start, -1)
            end = next((end for end in ends if word[start:end] in self._ids), None)
            if end is None:
                return [UNKNOWN]
            ids.append(self._ids[word[start:end]])
            start = end
        return ids
