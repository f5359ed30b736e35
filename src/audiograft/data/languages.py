"""Names of languages as corpora write them -> one code each."""

from __future__ import annotations

_NAMES = {
    "ar": "ara arabic",
    "bn": "ben bengali",
    "ca": "cat catalan",
    "cs": "ces cze czech",
    "cy": "cym wel welsh",
    "da": "dan danish",
    "de": "deu ger german deutsch",
    "el": "ell gre greek",
    "en": "eng english",
    "eo": "epo esperanto",
    "es": "spa spanish espanol español castilian",
    "eu": "eus baq basque",
    "fa": "fas per persian farsi",
    "fi": "fin finnish suomi",
    "fr": "fra fre french francais français",
    "he": "heb hebrew iw",
    "hi": "hin hindi",
    "hu": "hun hungarian",
    "id": "ind indonesian",
    "it": "ita italian italiano",
    "ja": "jpn japanese",
    "ko": "kor korean",
    "nl": "nld dut dutch nederlands",
    "no": "nor norwegian nb nob nn nno",
    "pl": "pol polish polski",
    "pt": "por portuguese portugues português",
    "ro": "ron rum romanian",
    "ru": "rus russian",
    "rw": "kin kinyarwanda",
    "sv": "swe swedish svenska",
    "sw": "swa swahili",
    "ta": "tam tamil",
    "th": "tha thai",
    "tr": "tur turkish",
    "uk": "ukr ukrainian",
    "ur": "urd urdu",
    "vi": "vie vietnamese",
    "zh": "zho chi cmn chinese mandarin",
}
_CODES = {name: code for code, names in _NAMES.items() for name in names.split()}


def language_code(name: str) -> str:
    """`en-US`, `EN`, `eng` and `English` are all `en`: the ISO 639-1 code, without region or script.

    A language that isn't known here is its first part in small letters, so that it still equals itself.
    """
    first = name.strip().casefold().replace("_", "-").partition("-")[0]
    return _CODES.get(first, first)
