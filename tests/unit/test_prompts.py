"""Chat messages have the asked number of tokens, the template's own included."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.measure.prompts import ChatText, chat_text
from tuner.errors import BadInput

WORDS = ["Ġred", "Ġgreen", "Ġblue", "Ġx2", "x", "red"]


class Tokenizer:
    """A word with its space is one token; at the start of a text a word costs ``opening`` tokens."""

    name_or_path = "words"

    def __init__(self, opening=1):
        self.opening = opening

    def __len__(self):
        return len(WORDS)

    def convert_ids_to_tokens(self, ids):
        return [WORDS[one] for one in ids]

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        found = re.findall(r" ?[^ ]+", text)
        known = [WORDS.index(one.replace(" ", "Ġ")) if one.replace(" ", "Ġ") in WORDS else -1 for one in found]
        return known[:1] * self.opening + known[1:] if text.startswith("<") else known

    def apply_chat_template(self, said, tokenize, add_generation_prompt):
        assert (tokenize, add_generation_prompt) == (False, True)
        return f"<user> {said[0]['content']} </user> <assistant>"


@pytest.mark.slow
@given(tokens=st.integers(4, 300), opening=st.integers(1, 3), draws=st.lists(st.integers(0, 999), min_size=1))
def test_a_prompt_has_the_asked_tokens(tokens, opening, draws):
    text = ChatText(Tokenizer(opening))
    if tokens < text.shortest:
        with pytest.raises(BadInput):
            text.message(tokens, draws)
    else:
        assert text.count(text.message(tokens, draws)) == tokens


def test_equal_draws_open_alike():
    text = ChatText(Tokenizer())
    short, long = text.message(20, [1, 2, 3]), text.message(40, [1, 2, 3])
    assert long.startswith(short)
    assert set(long.split()) == {"red", "green", "blue"}


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(BadInput, match="--tokenizer"):
        chat_text(tmp_path / "none")
