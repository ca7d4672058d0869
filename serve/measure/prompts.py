"""Chat messages of an exact length in tokens: as the server counts it, the model's chat template included."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuner.errors import BadInput

MOST_WORDS = 512
_LOOKED_AT = 20_000  # tokens of the vocabulary, the most frequent first
_TRIES = 8


class ChatText:
    """Writes messages with a Hugging Face tokenizer, from words that are one token each after any other word."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._words = _words(tokenizer)
        if not self._words:
            raise BadInput("--tokenizer", tokenizer.name_or_path, "one with words of a single token")
        self.shortest = self.count(self._words[0].strip())

    def count(self, message: str) -> int:
        """Tokens of a prompt that holds this one user message."""
        said = [{"role": "user", "content": message}]
        text = self._tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        return len(self._tokenizer.encode(text, add_special_tokens=False))  # the template has written them

    def message(self, tokens: int, draws: Sequence[int]) -> str:
        """A message that makes a prompt of ``tokens``; equal ``draws`` give equal words, one each.

        Raises BadInput where the template alone is as long, or the words of this tokenizer do not add up.
        """
        if tokens < self.shortest:
            raise BadInput("--prompt-tokens", tokens, f"at least {self.shortest} tokens with this chat template")
        words = tokens - self.shortest + 1
        for _ in range(_TRIES):
            text = "".join(self._words[draws[place % len(draws)] % len(self._words)] for place in range(words)).strip()
            if (missing := tokens - self.count(text)) == 0:
                return text
            words = max(1, words + missing)
        raise BadInput("--tokenizer", self._tokenizer.name_or_path, f"one that can make a prompt of {tokens} tokens")


def _words(tokenizer: Any) -> tuple[str, ...]:
    """Words with the space before them that are one token wherever they follow a letter."""
    names = tokenizer.convert_ids_to_tokens(list(range(min(len(tokenizer), _LOOKED_AT))))
    start = tokenizer.encode("x", add_special_tokens=False)
    found = []
    for number, name in enumerate(names):
        word = re.sub(r"^[Ġ▁]", " ", name or "")
        if re.fullmatch(r" [A-Za-z]+", word) and tokenizer.encode("x" + word, add_special_tokens=False) == [
            *start,
            number,
        ]:
            found.append(word)
            if len(found) == MOST_WORDS:
                break
    return tuple(found)


@lru_cache(maxsize=2)
def chat_text(directory: Path) -> ChatText:
    """The writer for a directory with a tokenizer and its chat template. Nothing is fetched, no code of it is run.

    Raises BadInput for a directory without them.
    """
    if not directory.is_dir():
        raise BadInput("--tokenizer", str(directory), "a directory with a Hugging Face tokenizer")
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise BadInput("--tokenizer", str(directory), "transformers installed (pip install transformers)") from None
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        allowed = f"a directory with a Hugging Face tokenizer ({type(error).__name__})"
        raise BadInput("--tokenizer", str(directory), allowed) from None
    if not tokenizer.chat_template:
        raise BadInput("--tokenizer", str(directory), "a tokenizer with a chat template")
    return ChatText(tokenizer)
