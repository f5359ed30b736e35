"""The model card: README.md with metadata for the hub, in which every figure names the file that it was read from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from audiograft.model.records import ADAPTER_NAME, CONFIG_NAME, Evaluation, Figure, read_json, training_record
from audiograft.types import ConfigError

Task = Literal["automatic-speech-recognition", "audio-text-to-text"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MARK = re.compile(r"<!-- card by audiograft, sha256 of what stands above: ([0-9a-f]{64}) -->\n\Z")
_FRAME_MS = 20
_NOT_IN_CARD = ("data", "deafness", "expected_wer", "feature_cache", "output_dir", "report_to")
"""Keys of a recipe that are of no use to others, or that are paths."""
_ROLES = {
    "training": "**it was trained on it**",
    "validation": "yes, validation data of its training",
    "other": "not by its training",
    "unknown": "not known",
}
_MEASURES = {"wer": "word error rate", "accuracy": "right answers"}
_TASKS = {
    "wer": ("automatic-speech-recognition", "Automatic Speech Recognition", "clips"),
    "accuracy": ("audio-text-to-text", "Audio-Text-to-Text", "answers"),
}
"""By measure: the hub's task, its name, and what is counted."""
_BASELINES = {"true": "", "shuffled": ", **baseline: other rows' clips**", "none": ", **baseline: no clips**"}
_UNSEEN = {"true": "", "shuffled": ", **baseline: other rows' pictures**", "none": ", **baseline: no pictures**"}


@dataclass(frozen=True)
class CardOptions:
    """What the person who uploads decides.

    Attributes:
        task: the hub's pipeline tag.
        licence: identifier as the hub knows it; left out where it is None.
        base_models: hub ids; found in the folder's own files where there are none.
    """

    task: Task = "automatic-speech-recognition"
    licence: str | None = None
    base_models: tuple[str, ...] = ()


def build_card(folder: Path, repo: str, evaluations: Sequence[Evaluation], options: CardOptions) -> str:
    """The whole text of README.md.

    Args:
        folder: a model or adapter folder.
        repo: OWNER/NAME.
        evaluations: the runs whose figures are shown; no other figure of quality is claimed.
        options: task, licence, base models.

    Raises:
        ConfigError: a JSON file of the folder is damaged.
    """
    try:
        return sign(_text(folder, repo, evaluations, options))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"{folder}: config.json, adapter.json or train.json is not as audiograft writes it ({error!r}): make it again") from error


def _text(folder: Path, repo: str, evaluations: Sequence[Evaluation], options: CardOptions) -> str:
    config = read_json(folder / CONFIG_NAME) if (folder / CONFIG_NAME).is_file() else {}
    adapter = read_json(folder / ADAPTER_NAME) if (folder / ADAPTER_NAME).is_file() else None
    names = _base_names(config, adapter)
    bases = list(options.base_models) or [name for name in names if _is_hub_id(name)]
    metadata = _metadata(repo, bases, adapter is not None, evaluations, options)
    sections = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True, width=1000)}---",
        f"# {repo.rpartition('/')[2]}",
        _what_it_is(config, adapter, bases or [_public(name) for name in names]),
        _how_to_use(repo, options.task, adapter is not None, bases),
        _results(evaluations),
        _how_trained(folder),
        _not_tested(evaluations, options.licence),
    ]
    return "\n\n".join(section for section in sections if section) + "\n\n"


def sign(text: str) -> str:
    """The text with a last line by which `is_ours` knows it again, as long as nobody edits it."""
    return f"{text}<!-- card by audiograft, sha256 of what stands above: {hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_ours(text: str) -> bool:
    """Whether a card was written here and not edited since."""
    found = _MARK.search(text)
    return found is not None and hashlib.sha256(text[: found.start()].encode()).hexdigest() == found[1]


def _base_names(config: dict[str, Any], adapter: dict[str, Any] | None) -> list[str]:
    """What the model was made of, as the folder's files name it: hub ids or paths."""
    base = (adapter or {}).get("base") or {}
    parts = base.get("graft") or {}
    named = [base.get("model"), parts.get("audio_encoder"), parts.get("language_model")]
    if not any(named):
        named = [(config.get(part) or {}).get("_name_or_path") for part in ("audio_config", "text_config")]
    return [str(name) for name in named if name]


def _is_hub_id(name: str) -> bool:
    # `runs/align` looks like a hub id too: it is a path where there is such a folder.
    return _HUB_ID.fullmatch(name) is not None and not Path(name.partition("/")[0]).is_dir()


def _public(name: str) -> str:
    """A name that tells nothing of the machine it comes from."""
    return name if _is_hub_id(name) or "/" not in name else f"{Path(name).name} (a local folder)"


def _metadata(repo: str, bases: list[str], is_adapter: bool, evaluations: Sequence[Evaluation], options: CardOptions) -> dict[str, Any]:
    """The hub's model card metadata (https://huggingface.co/docs/hub/model-cards)."""
    metadata: dict[str, Any] = {"library_name": "audiograft", "pipeline_tag": options.task}
    if options.licence:
        metadata["license"] = options.licence
    if bases:
        metadata["base_model"] = bases
        if is_adapter:
            metadata["base_model_relation"] = "adapter"
    metadata["tags"] = ["audiograft", "audio", "speech", *(["lora", "peft"] if is_adapter else [])]
    # Neither what it was trained on nor a baseline has a place in a table that leaderboards read.
    whole = [item for item in evaluations if item.role != "training" and item.audio == item.pictures == "true"]
    shown = [_index_entry(item, figure) for item in whole for figure in item.figures]
    if shown:
        metadata["model-index"] = [{"name": repo.rpartition("/")[2], "results": shown}]
    return metadata


def _index_entry(item: Evaluation, figure: Figure) -> dict[str, Any]:
    task, task_name, unit = _TASKS[figure.measure]
    return {
        "task": {"type": task, "name": task_name},
        "dataset": {"type": "manifest", "name": item.data, "args": {"manifest_sha256": item.manifest_sha256, unit: figure.rows}},
        "metrics": [
            {
                "type": figure.measure,
                "name": f"{_MEASURES[figure.measure]}, in percent ({item.normaliser})",
                "value": round(100 * figure.rate, 2),
                "args": {
                    "low": None if figure.low is None else round(100 * figure.low, 2),
                    "high": None if figure.high is None else round(100 * figure.high, 2),
                    "confidence": figure.confidence,
                    "failed_rows": item.failed,
                    "touches_training": None if item.touches is None else list(item.touches),
                    "used_for_choosing": {"validation": "yes", "other": "not by its training"}.get(item.role, "not known"),
                    "metrics_sha256": item.metrics_sha256,
                },
            }
        ],
    }


def _what_it_is(config: dict[str, Any], adapter: dict[str, Any] | None, bases: list[str]) -> str:
    made_of = f" Made of {' and '.join(f'`{name}`' for name in bases)}." if bases else ""
    if adapter is not None:
        first = "An adapter by audiograft: what training changed, to be put on top of the models that it was made of."
    elif config.get("model_type") == "audiograft":
        first = "A language model with ears: an audio encoder grafted onto it by audiograft."
    else:
        first = f"A {config.get('model_type', 'transformers')} model, trained with audiograft."
    lines = [first + made_of]
    if adapter is not None and adapter.get("lora_gate") == "audio":
        lines.append("LoRA in its language model acts on prompts with audio alone: to all others it answers as its base does, until it is merged.")
    if config.get("model_type") == "audiograft":
        length = "every clip is padded to 30 s" if config.get("pad_to_window") else "a clip takes as many tokens as it is long"
        lines.append(f"Projector `{config['projector_type']}`, {_FRAME_MS * config['frame_stack']} ms of audio a token; {length}.")
    if note := (config if adapter is None else adapter).get("note"):
        lines.append("\n".join(f"> {line}" for line in str(note).splitlines()))
    return "\n\n".join(lines)


def _how_to_use(repo: str, task: Task, is_adapter: bool, bases: list[str]) -> str:
    commands = [f"audiograft transcribe --model {repo} clip.wav"]
    if task == "audio-text-to-text":
        commands.append(f'audiograft ask clip.wav --model {repo} --prompt "What is this about?"')
    shell = "\n".join(commands)
    needs = f" It loads {' and '.join(f'`{name}`' for name in bases)} too, from the hub or from the cache." if is_adapter and bases else ""
    return (
        f"## Use\n\nWith audiograft installed:{needs}\n\n```bash\n{shell}\n```\n\n"
        f'```python\nimport audiograft\n\nprint(audiograft.load("{repo}").transcribe("clip.wav").text)\n```'
    )


def _results(evaluations: Sequence[Evaluation]) -> str:
    if not evaluations:
        return "## Results\n\nNone are claimed: no evaluation run was named when this was uploaded."
    rows = ["| data | measure | value | interval | rows | normaliser | data used for choosing | from |", "|---|---|---|---|---|---|---|---|"]
    for item in evaluations:
        failed = f", {item.failed} more failed" if item.failed else ""
        source = f"`{Path(item.folder).name}/metrics.json`, sha256 {item.metrics_sha256[:12]}"
        touches = f", **shares {' and '.join(map(_cell, item.touches))} with its training data**" if item.touches else ""
        given = _BASELINES.get(item.audio, _cell(item.audio)) + _UNSEEN.get(item.pictures, _cell(item.pictures))
        data = f"{_cell(item.data)}, sha256 {item.manifest_sha256[:12]}{given}{touches}"
        rows += [
            f"| {data} | {_MEASURES[figure.measure]} | {_percent(figure.rate)} | {_interval(figure)} | {figure.rows}{failed} "
            f"| {_cell(item.normaliser)} | {_ROLES[item.role]} | {_cell(source)} |"
            for figure in item.figures
        ]
    prompts = sorted({item.prompt for item in evaluations if item.prompt})
    said = f" Instruction: {', '.join(f'`{_cell(prompt)}`' for prompt in prompts)}." if prompts else ""
    return "## Results\n\n" + "\n".join(rows) + f"\n\nMade by `audiograft evaluate`; corpus rates, intervals clustered by speaker.{said}"


def _how_trained(folder: Path) -> str:
    """How it was trained, by train.json or what an adapter keeps of it."""
    found = training_record(folder)
    if found is None:
        return "## How it was trained\n\nThe folder had no train.json: not known."
    file, record = found
    recipe = record.get("recipe") or {}
    versions = ", ".join(f"{name} {version}" for name, version in (record.get("versions") or {}).items())
    rows, counts = record.get("rows") or {}, record.get("parameters") or {}
    facts = {
        "stage": recipe.get("stage"),
        "steps": record.get("steps"),
        "clips for training": rows.get("train"),
        "training data": f"sha256 {record['data_fingerprint']}" if record.get("data_fingerprint") else None,
        "trained parameters": f"{counts['trainable']:,}" if "trainable" in counts else None,
        "wall time": f"{record['wall_time_s']:,.0f} s" if "wall_time_s" in record else None,
        "audiograft's commit": record.get("commit"),
        "versions": versions or None,
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None)])
    parts = [f"## How it was trained\n\nAll of this is from `{file}`.\n\n{table}", _deafness_table(record.get("deafness"))]
    if recipe:
        settings = {key: _shown(value) for key, value in recipe.items() if key not in _NOT_IN_CARD}
        parts.append(f"Recipe:\n\n```yaml\n{yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=1000)}```")
    return "\n\n".join(part for part in parts if part)


def _deafness_table(deafness: dict[str, Any] | None) -> str:
    if not deafness:
        return ""
    rows = [f"| {row['audio']} | {row['loss']:.3f} | {_percent(row['wer'])} |" for row in deafness["conditions"]]
    clips = f"{deafness['clips']} {deafness['source']} clips"
    verdict = "**It does not listen**: its answers hardly depend on the audio." if deafness["deaf"] else "It listens."
    return "\n".join(
        [
            f"Deafness check on {clips}, true against shuffled audio: p = {deafness['p_value']:.2g}. {verdict}",
            "",
            "| audio | loss a token | word error rate |",
            "|---|---|---|",
            *rows,
            "",
            f"These {clips} were at hand during training: the rates show whether it listens, not how good it is on others.",
        ]
    )


def _not_tested(evaluations: Sequence[Evaluation], licence: str | None) -> str:
    known = "Anything but the data in the table above" if evaluations else "Anything"
    lines = [
        f"- {known}. Other languages, accents, microphones, noise, music, long recordings and overlapping voices are open.",
        "- A model of this kind can write down words that nobody said, most of all for silence and noise.",
        "- What the graft and its training did to the language model's other abilities, and to its safety, was not measured.",
    ]
    if licence is None:
        lines.append("- No licence was named when this was uploaded. Those of the models that it was made of hold in any case.")
    return "## What it was not tested for\n\n" + "\n".join(lines)


def _shown(value: Any) -> Any:
    """A recipe's value without paths of the machine it ran on."""
    if isinstance(value, dict):
        return {key: _shown(item) for key, item in value.items()}
    if isinstance(value, str) and "/" in value and " " not in value:
        return _public(value)
    return value


def _cell(value: Any) -> str:
    """Text that can't break out of a Markdown table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return "not known"
    return f"{_percent(figure.low)} to {_percent(figure.high)} ({100 * figure.confidence:g} %)"


def _percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"
