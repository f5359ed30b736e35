"""The notebooks: stored as they were executed from top to bottom, and able to be executed again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_BYTES = 1_000_000
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|Users|usr|opt|var|private)/|[A-Z]:\\\\|site-packages")
PROMISED = {
    "01_concepts": [
        "80 bands x 312 frames",
        "156 frames of speech, 1344 of padding: 90% of the window",
        "[39 x <|audio|>]",
        "15 tokens, 15 of them the likeliest",
        '" office"',
        "only projector changed: 4 tensors, and 117 are the same",
        "language_model and projector changed: 32 tensors, and 89 are the same",
        "it listens",
        "tiny:    the code for the office safe is two five two nine",
        "image/png",
    ],
    "02_results": ["78 clips", "95 % interval", "clean        WER   0.", "shuffled", "&rarr;", "data:audio/mpeg;base64,", "report.html", "image/png"],
    "03_your_own_recording": [
        "MY_RECORDING: play some folk music for edward in the nursery after dinner",
        "old-phone.amr",
        "Which room is mentioned?     nursery",
        "lucy travels from lisbon to rome by tram on monday night",
        "every sample is zero; transcribed as empty",
        "error: ../runs/notebooks/recording/notes.mp3: not audio",
        "error: ../runs/notebooks/recording/never-recorded.m4a: no such file",
    ],
    "04_ears_beside_eyes": [
        "8.9 million parameters",
        "circles:  three                right: three",
        "place:    middle               right: middle",
        "size:     large                right: large",
        "place.wav, second picture: top left",
        "torch.equal:     True",
        "28 layers merged, the gate was given up: True",
        "gated:  equal bit for bit in 40 of 40 questions, KL divergence 0.0000 nats",
        "merged: equal bit for bit in  0 of 40 questions",
        "1 shape:  60 of 60 right",
        "image/png",
    ],
}
"""What a reader is to see, in the stored outputs and in those of any other run."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: Any) -> str:
    """All outputs as text: what was printed, and each form of what was displayed with the name of the form."""
    parts = []
    for output in (output for cell in code_cells(notebook) for output in cell.outputs):
        parts += [output.text] if output.output_type == "stream" else [f"{kind}\n{value}" for kind, value in output.get("data", {}).items()]
    return "\n".join(parts)


def test_there_is_a_promise_for_each_notebook() -> None:
    assert [path.stem for path in NOTEBOOKS] == list(PROMISED)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_was_executed_from_top_to_bottom(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    outputs = shown(notebook)
    assert [promise for promise in PROMISED[path.stem] if promise not in outputs] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_is_small_and_names_no_machine(path: Path) -> None:
    assert path.stat().st_size < MAX_BYTES
    without_pictures = re.sub(r"[A-Za-z0-9+/=]{200,}", "", path.read_text(encoding="utf-8"))
    assert MACHINE_PATH.findall(without_pictures) == []
    assert "\\u001b[" not in without_pictures
    assert set(read(path).metadata) == {"kernelspec", "language_info"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    assert [target for target in re.findall(r"\]\((?!https?:)([^)#]+)", text) if not (path.parent / target).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_again(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that looks like the repository from inside, so that nothing it writes lands in the true one."""
    (tmp_path / "notebooks").mkdir()
    for name in ("examples", "recipes"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "tests" / "data" / "clips", tmp_path / "tests" / "data" / "clips")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "notebooks")}}).execute()
    outputs = shown(notebook)
    assert [promise for promise in PROMISED[path.stem] if promise not in outputs] == []
