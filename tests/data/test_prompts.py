from __future__ import annotations

from pathlib import Path

import pytest

from audiograft.data.prompts import find_prompts, read_prompts, with_drawn_prompt
from audiograft.types import DataError, Sample


def test_the_packaged_instructions_are_sixteen_that_differ() -> None:
    prompts = read_prompts("instructions")

    assert len({prompt.casefold().rstrip("?.") for prompt in prompts}) == 16


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "instructions").write_text("Mine.\n")

    assert read_prompts("instructions") == ["Mine."]
    assert find_prompts("others.txt") == Path("others.txt")


def test_each_row_draws_its_own_by_seed_and_id() -> None:
    prompts = read_prompts("instructions")
    samples = [Sample(id=f"84-121123-{number:04d}", clips=("a.flac",)) for number in range(500)]
    drawn = [with_drawn_prompt(sample, prompts, seed=7).prompt for sample in samples]

    assert set(drawn) == set(prompts)
    assert drawn == [with_drawn_prompt(sample, prompts, seed=7).prompt for sample in samples]
    assert drawn != [with_drawn_prompt(sample, prompts, seed=8).prompt for sample in samples]


def test_a_row_with_an_instruction_of_its_own_keeps_it() -> None:
    sample = Sample(id="a", clips=("a.flac",), prompt="Who is it?")

    assert with_drawn_prompt(sample, read_prompts("instructions"), seed=0) == sample


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: can't be read \(No such file or directory\): name a file of instructions"):
        read_prompts(tmp_path / "none.txt")
