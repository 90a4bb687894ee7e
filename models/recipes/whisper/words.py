"""The words, and the tokens that CTranslate2 and faster-whisper expect of a Whisper.

Their order is part of the format: text, "", end of text, start of transcript, languages, tasks and marks, then times.
Ids below <|endoftext|> are text and ids above <|notimestamps|> are times to both programs; the empty string tells
CTranslate2 (4.7 or newer) that the model knows several languages.
"""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers


def listed(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


DIGITS = listed("zero one two three four five six seven eight nine ten eleven twelve")
COLOURS = listed("red green blue yellow black white orange purple brown pink grey")
WEEKDAYS = listed("monday tuesday wednesday thursday friday saturday sunday")
COMMANDS = listed("""start stop open close left right up down play pause next back yes no on off light door window music
volume help save load delete hello computer please weather turn today thanks""")
IN_SENTENCES = listed("this is a test of the transcription translation service and what")
ENGLISH = DIGITS + COLOURS + WEEKDAYS + COMMANDS + IN_SENTENCES
GERMAN = listed("null eins zwei drei vier fünf sechs sieben acht neun zehn")
IN_ENGLISH = dict(zip(GERMAN, DIGITS, strict=False))

# Whisper's languages in its order; only "en" and "de" are spoken here, but clients may name any.
LANGUAGES = listed("""en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr
bg lt la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg
sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su""")
END, START = "<|endoftext|>", "<|startoftranscript|>"
TRANSLATE, TRANSCRIBE, PREVIOUS = "<|translate|>", "<|transcribe|>", "<|startofprev|>"
NO_SPEECH, NO_TIMES = "<|nospeech|>", "<|notimestamps|>"
SPECIAL = (
    [END, START]
    + [f"<|{code}|>" for code in LANGUAGES]
    + [TRANSLATE, TRANSCRIBE, "<|startoflm|>", PREVIOUS, NO_SPEECH, NO_TIMES]
)
TIMES = [f"<|{at * 0.02:.2f}|>" for at in range(1501)]


@cache
def printable_bytes() -> list[str]:
    """GPT-2's printable character for each byte, which byte-level BPE writes in its place."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in plain else next(others)) for byte in range(256)]


def spelled(word: str) -> str:
    """A space and the word, as the token that stands for both."""
    return "".join(printable_bytes()[byte] for byte in f" {word}".encode())


@cache
def text_tokens() -> tuple[list[str], list[tuple[str, str]]]:
    """Tokens of text, and the merges that make each word with its space one of them: grown from the left."""
    tokens = {byte: None for byte in printable_bytes()}
    merges = []
    for word in ENGLISH + GERMAN:
        symbols = spelled(word)
        for end in range(1, len(symbols)):
            if symbols[: end + 1] not in tokens:
                tokens[symbols[: end + 1]] = None
                merges.append((symbols[:end], symbols[end]))
    return list(tokens), merges


@cache
def tokens() -> list[str]:
    """All tokens, in the order of their ids."""
    return [*text_tokens()[0], "", *SPECIAL, *TIMES]


@cache
def ids() -> dict[str, int]:
    """The id of each token."""
    return {token: at for at, token in enumerate(tokens())}


def tokenizer() -> Tokenizer:
    """What `tokenizer.json` holds: the same ids, all 256 bytes, so that any prompt can be given."""
    text, merges = text_tokens()
    model = models.BPE(vocab={token: at for at, token in enumerate([*text, ""])}, merges=merges, unk_token="")
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made
