"""The source `esc50`: 2000 everyday sounds in 50 categories, and which of them count as non-speech."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import ClassVar

from audiograft.data.download import Download, download_option, fetch, mirror_option
from audiograft.data.paths import OutsideError, clip_path
from audiograft.data.sources.base import SourceRow, option
from audiograft.types import ConfigError, DataError, Rejection, Sample

ARCHIVE = Download("https://github.com/karoldvl/ESC-50/archive/master.zip", "ESC-50-master.zip")
_TABLE = Path("meta") / "esc50.csv"
_COLUMNS = ("filename", "fold", "category", "src_file")

_VOICE = "comes from a human mouth or throat"
_ANIMAL = "is an animal's voice, with a pitch and formants as a human one"
_NOISE = ""
CATEGORIES: Mapping[str, str] = {
    # animals
    "dog": _ANIMAL,
    "rooster": _ANIMAL,
    "pig": _ANIMAL,
    "cow": _ANIMAL,
    "frog": _ANIMAL,
    "cat": _ANIMAL,
    "hen": _ANIMAL,
    "insects": _NOISE,
    "sheep": _ANIMAL,
    "crow": _ANIMAL,
    # nature and water
    "rain": _NOISE,
    "sea_waves": _NOISE,
    "crackling_fire": _NOISE,
    "crickets": _NOISE,
    "chirping_birds": _ANIMAL,
    "water_drops": _NOISE,
    "wind": _NOISE,
    "pouring_water": _NOISE,
    "toilet_flush": _NOISE,
    "thunderstorm": _NOISE,
    # people
    "crying_baby": _VOICE,
    "sneezing": _VOICE,
    "clapping": _NOISE,
    "breathing": _VOICE,
    "coughing": _VOICE,
    "footsteps": _NOISE,
    "laughing": _VOICE,
    "brushing_teeth": _NOISE,
    "snoring": _VOICE,
    "drinking_sipping": _VOICE,
    # indoors
    "door_wood_knock": _NOISE,
    "mouse_click": _NOISE,
    "keyboard_typing": _NOISE,
    "door_wood_creaks": _NOISE,
    "can_opening": _NOISE,
    "washing_machine": _NOISE,
    "vacuum_cleaner": _NOISE,
    "clock_alarm": _NOISE,
    "clock_tick": _NOISE,
    "glass_breaking": _NOISE,
    # outdoors
    "helicopter": _NOISE,
    "chainsaw": _NOISE,
    "siren": _NOISE,
    "car_horn": _NOISE,
    "engine": _NOISE,
    "train": _NOISE,
    "church_bells": _NOISE,
    "airplane": _NOISE,
    "fireworks": _NOISE,
    "hand_saw": _NOISE,
}
"""The 50 categories, and why one does not count as non-speech; nothing where it does. A detector of voices should not be taught that a baby's cry
holds none, nor be tested with it."""
NON_SPEECH = tuple(category for category, reason in CATEGORIES.items() if not reason)


@dataclass(frozen=True)
class Esc50:
    """ESC-50: clips of 5 s of everyday sounds, labelled with their category or as non-speech.

    PATH holds meta/esc50.csv and audio/, or the folder ESC-50-master with them.

    Example: audiograft prepare esc50 corpora/esc50 --download --non-speech --out esc50
    """

    name: ClassVar[str] = "esc50"

    path: Path = option("The corpus's folder.", argument=True)
    non_speech: bool = option("Only categories that count as non-speech, labelled NONSPEECH: those without voices of people or animals.", False)
    classes: tuple[str, ...] = option("Only these categories; with --non-speech, these in place of the declared ones.", ())
    download: bool = download_option()
    mirror: str | None = mirror_option()

    def __post_init__(self) -> None:
        for category in self.classes:
            if category not in CATEGORIES:
                close = difflib.get_close_matches(category, CATEGORIES, n=1, cutoff=0.0)[0]
                raise ConfigError(f"esc50: {category!r} is none of its categories: the closest is {close}")

    def rows(self, skip: int = 0) -> Iterator[SourceRow | Rejection]:
        """In the order of the table. Rows of other categories are passed over as if they weren't there."""
        return islice(self._rows(), skip, None)

    def _rows(self) -> Iterator[SourceRow | Rejection]:
        if self.download:
            fetch(ARCHIVE, self.path, self.mirror)
        table = _find_table(self.path)
        wanted = self.classes or (NON_SPEECH if self.non_speech else tuple(CATEGORIES))
        for number, row in _lines(table):
            if row.get("category") not in CATEGORIES or row["category"] in wanted:
                yield self._row(row, table, number)

    def _row(self, row: Mapping[str, str], table: Path, number: int) -> SourceRow | Rejection:
        place = f"{table}:{number}"
        clip = row.get("filename") or ""
        fault = _fault(row)
        if fault:
            return Rejection(Path(clip).stem or place, clip or place, f"{place}: {fault}: correct the line", "row")
        folder = table.parent.parent / "audio"
        try:
            path = clip_path(clip, folder, place)
        except OutsideError:
            return Rejection(Path(clip).stem, clip, f"{place}: the clip {clip} leaves the folder {folder}: correct the line", "outside")
        except DataError as error:
            return Rejection(Path(clip).stem, clip, str(error), "row")
        return SourceRow(
            Sample(
                id=Path(clip).stem,
                clips=(path,),
                # All takes of one upload; other corpora that are cut from Freesound have the same numbers.
                recording=f"freesound_{row['src_file']}",
                label="NONSPEECH" if self.non_speech else row["category"],
                source=self.name,
                extra={"category": row["category"], "fold": int(row["fold"])},
            )
        )


def _find_table(folder: Path) -> Path:
    """Where the table is: in the folder, or in one of its folders, as the archive from GitHub brings it."""
    for root in (folder, folder / "ESC-50-master", *sorted(folder.glob("ESC-50*"))):
        if (root / _TABLE).is_file():
            return root / _TABLE
    raise DataError(f"{folder}: no {_TABLE} in it, nor in a folder ESC-50-master: correct the path, or fetch the corpus with --download")


def _lines(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line numbers and rows; what a line lacks, its row lacks."""
    try:
        with table.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{table}: no column {' and no column '.join(missing)}: take the file that is published, with all its columns")
            for row in reader:
                yield reader.line_num, {key: value for key, value in row.items() if isinstance(value, str)}
    except (OSError, csv.Error) as error:
        raise DataError(f"{table}: can't be read ({error}): fetch it again") from error


def _fault(row: Mapping[str, str]) -> str:
    """What is wrong with a row; nothing where it's right."""
    missing = [column for column in _COLUMNS if not row.get(column)]
    if missing:
        return f"no {' and no '.join(missing)}"
    if row["category"] not in CATEGORIES:
        return f"{row['category']!r} is none of the 50 categories"
    return "" if row["fold"].isdecimal() else f"the fold {row['fold']!r} is no number"
