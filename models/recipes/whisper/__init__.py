"""demo-whisper: hears 74 English words and the German digits, and tells which of the two languages it hears.

A CTranslate2 folder of 2.2 MB that faster-whisper loads in a few hundredths of a second: digits to twelve, colours,
weekdays, some forty words of commands and small sentences, and `hello this is a test of the transcription service`;
German digits are written down or translated. Text is lower case without punctuation. Other words become the nearest
that it knows; nobody but espeak-ng was ever heard in training.

- `words` the vocabulary, and tokens in the order that CTranslate2 and faster-whisper rely on.
- `phrases` words in a row and small sentences; one phrase in eight and eight forms of sentences are never trained.
- `espeak` speech, with the moment at which each word begins, from espeak-ng's library: `apt install espeak-ng`.
- `speech` 35,000 phrases and 2,300 speeches of up to 15 s without a pause, by 270 voices, as frames.
- `windows` what one window of faster-whisper holds of all that: pauses, noise, phrases that its end cuts.
- `network`, `train` a Whisper of 0.94 million parameters; first phrases, then twice conversations.
- `export` the folder. `evaluation` the table below. `fixtures` the recordings that the tests hear.

**Why it can hear a minute.** faster-whisper cuts a recording into windows (of 6 s here, `chunk_length`) and reads from
the times in each answer where the next window begins. So the model must tell a phrase that ends from one that is cut,
and where to take up again; see `windows`. Hear long recordings with `condition_on_previous_text=False`.

    python -m models.recipes build demo-whisper       # 9,300 steps: about 65 minutes on one core, 3 GB of memory
    python -m models.recipes evaluate demo-whisper    # 5 minutes; needs espeak-ng too

Word errors on voices and phrases never trained: 2.8 % greedily, 2.4 % with faster-whisper's defaults, 6.3 % in
sentences of new forms; 5.1 % in minutes of phrases with pauses (4.3 % with a beam of 5, 8.1 % in batches, 15.2 % when
conditioned on previous text), 18 % where a voice speaks for half a minute without a pause. White noise 30 dB below the
voice does no harm, 20 dB makes it 7 %, 10 dB 21 %; 215 words a minute 6.7 %. German digits 0.8 %, translated 2.2 %;
the language is right 99.8 % of the time, both sentences of the documentation always. Words begin within 0.2 s of where
they do for 92 %. Silence gives nothing, nor does most noise (94 % of clips); in loud white noise it may hear words
unless faster-whisper's `vad_filter` is on: it was trained with noise drawn frame by frame, and should hear real noise.
"""

from __future__ import annotations

from pathlib import Path

from ..recipe import Recipe, Score


def build(target: Path, work: Path) -> None:
    """Speak, train, write the folder. What `work` has already is not made again."""
    from . import export, speech, train

    def recorded(name: str, plan: speech.Plan) -> list[speech.Phrase]:
        path = work / f"{name}.npz"
        if not path.exists():
            speech.record(path, plan)
        return speech.recorded(path)

    phrases, speeches = recorded("phrases", speech.PHRASES), recorded("speeches", speech.SPEECHES)
    export.write(train.train(phrases, speeches, work), target)


def evaluate(path: Path) -> list[Score]:
    from . import evaluation

    return evaluation.evaluate(path)


RECIPE = Recipe("demo-whisper", "demo-whisper", build, evaluate)
