"""What a hypothesis looks like that is no transcript: empty, a decoding loop, a refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from audiograft.metrics.words import split_glued, word_key

_MIN_CHARACTERS = 12
"""Shortest run that counts: "no, no, no, no" is speech, and a million has six zeros."""
_WORD_RUN = re.compile(r"(.{1,8}?)\1{3,}", re.DOTALL)
_CHARACTER_RUN = re.compile(r"(.{1,32}?)\1{5,}", re.DOTALL)
"""Characters repeat by themselves more easily than words do: `1,000,000,000,000`."""

_SOUND = r"(?:audio|sound|voice|recording|speech)"
_CANNOT = r"(?:can'?t|can ?not|(?:'m|am) unable to|(?:'m|am) not able to|do(?:n'?t| not) have the ability to)"
_REFUSALS = re.compile(
    "|".join(
        (
            # English
            rf"^(?:i'?m |i am )?(?:(?:very|really|so) )?sorry,? (?:but )?(?:as an? ai\b|i ?{_CANNOT}\b|i do(?:n'?t| not) have)",
            r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|text[- ]based)\b",
            r"\bi(?:'m| am) (?:just |only )?an? (?:ai|(?:large )?language model|text[- ]based)\b",
            rf"\bi ?{_CANNOT} (?:directly |actually )?(?:hear|listen|process|access|play|transcribe|analy[sz]e|interpret)\b.{{0,40}}\b{_SOUND}",
            rf"\bi do(?:n'?t| not) (?:have|see|hear) (?:access to )?(?:any |the |an )?{_SOUND}",
            rf"\b(?:provide|upload|share|send|attach) (?:me )?(?:with )?(?:the|your|an|a)\b.{{0,20}}\b{_SOUND}(?: file| clip| so\b| and\b|[.!?]|$)",
            rf"\bno {_SOUND}(?: (?:file|clip|content|input))? (?:was |has been |is )?(?:provided|attached|uploaded|given)\b",
            # German, French, Spanish and Portuguese, Italian, Dutch
            r"\bals (?:ki|künstliche intelligenz|sprachmodell|ki-\w+)\b|^(?:es )?tut mir leid,? (?:aber )?ich kann",
            r"\bich kann (?:leider )?(?:keine|die|das|diese) (?:audio|ton|aufnahme)",
            r"\ben tant qu(?:e |['’])(?:modèle|ia|intelligence artificielle)\b|^(?:je suis )?désolée?,? (?:mais )?je ne (?:peux|suis)",
            r"\bje ne (?:peux|suis) pas (?:en mesure d['e] ?)?(?:écouter|entendre|transcrire|traiter)\b.{0,20}\baudio",
            r"\bcomo (?:un |um )?(?:modelo de leng|modelo de ling|ia\b|inteligencia artificial|inteligência artificial)",
            r"^(?:lo siento|lo lamento|desculpe|sinto muito|lamento),? (?:pero |mas )?n[oã]o? (?:puedo|posso|tengo|consigo)",
            r"\bcome (?:modello linguistico|ia\b|intelligenza artificiale)|^mi dispiace,? (?:ma )?non (?:posso|sono in grado)",
            r"\bals (?:ai|taalmodel|ai-\w+)\b|^(?:het )?spijt me,? (?:maar )?ik kan",
            # Russian, Chinese, Japanese, Korean, Hindi
            r"\bкак (?:языковая модель|ии\b|искусственный интеллект)|^(?:извините|к сожалению),? (?:но )?я не могу",
            r"作为(?:一个|一名)?(?:ai|人工智能|大?语言模型)|请(?:您|你)?(?:提供|上传)[^。]{0,8}(?:音频|录音)",
            r"(?:无法|不能)(?:直接)?(?:听取|收听|听到|处理|播放|转录|访问)[^。]{0,6}(?:音频|录音|声音)",
            r"(?:ai|言語モデル|人工知能)として|音声[^。]{0,8}(?:聞く|聴く|処理する|再生する)ことは?できません",
            r"(?:ai|언어 모델|인공지능)(?:로서|으로서)|오디오(?:를|을)? (?:들을|처리할) 수 없",
            r"(?:एआई|भाषा मॉडल) के (?:रूप में|तौर पर)",
        )
    )
)


def is_empty(hypothesis: str) -> bool:
    """Whether a hypothesis says nothing: it holds neither letter nor digit."""
    return not any(character.isalnum() for character in hypothesis)


def find_repetition(hypothesis: str, reference: str = "") -> str | None:
    """The phrase that a hypothesis repeats over and over, as decoding loops do; None where it does not.

    A phrase of 1 to 8 words counts that stands 4 times or more in a row, or 1 to 32 characters 6 times or more, where the run has 12 letters or
    more and is half of the text or more. Case and the punctuation of words do not matter.

    Args:
        hypothesis: raw text.
        reference: what was said, where it is known. Speakers repeat themselves too: a run no more than twice as long as one of the same phrase
            in the reference is no loop.
    """
    words = [(word, glued, word_key(word)) for word, glued in split_glued(hypothesis)]
    words = [word for word in words if word[-1]]
    keys = [key for *_, key in words]
    span = _longest_run(keys, _WORD_RUN)
    if span is not None:
        start, size, repeats = span
        said = [key for word, _ in split_glued(reference) if (key := word_key(word))]
        if repeats <= 2 * _times_in_a_row(keys[start : start + size], said):
            return None
        return "".join(f"{'' if glued or not i else ' '}{word}" for i, (word, glued, _) in enumerate(words[start : start + size]))
    characters, said = list("".join(hypothesis.split())), list("".join(reference.split()))
    span = _longest_run(characters, _CHARACTER_RUN)
    if span is None:
        return None
    start, size, repeats = span
    unit = characters[start : start + size]
    return None if repeats <= 2 * _times_in_a_row(unit, said) else "".join(unit)


def find_refusal(hypothesis: str, reference: str = "") -> str | None:
    """The words with which a hypothesis refuses, such as "as an AI" or "I cannot hear the audio"; None where it does not.

    The patterns are English, with the commonest phrases of eleven other languages: what they do not know is not found.

    Args:
        hypothesis: raw text.
        reference: what was said, where it is known: where it sounds like a refusal too, the hypothesis repeats it and is none.
    """
    found = _REFUSALS.search(_plain(hypothesis))
    return None if found is None or _REFUSALS.search(_plain(reference)) else found[0].strip()


def _longest_run(units: Sequence[str], runs: re.Pattern[str]) -> tuple[int, int, int] | None:
    """(start, units in the phrase, repeats) of the longest run, where it is long enough to be a loop."""
    codes = {unit: chr(i) for i, unit in enumerate(dict.fromkeys(units))}
    text = "".join(codes[unit] for unit in units)
    longest = max(runs.finditer(text), key=lambda run: len(run[0]), default=None)
    if longest is None or 2 * len(longest[0]) < len(units) or sum(map(len, units[longest.start() : longest.end()])) < _MIN_CHARACTERS:
        return None
    return longest.start(), len(longest[1]), len(longest[0]) // len(longest[1])


def _times_in_a_row(phrase: Sequence[str], units: Sequence[str]) -> int:
    """How often a phrase follows itself at most."""
    size = len(phrase)
    times = [0] * (len(units) + size)
    for start in reversed(range(len(units))):
        if units[start : start + size] == phrase:
            times[start] = 1 + times[start + size]
    return max(times)


def _plain(text: str) -> str:
    return " ".join(text.replace("’", "'").lower().split())
