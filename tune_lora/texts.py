"""A finished text LoRA, whoever made it: let it write. Needs no Ray session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.lora.text.sources import resolve
from tune_lora import build, sources
from tune_lora.errors import InputError
from tune_lora.sources import DATABASE, STUDY_FILE
from tune_lora.spec import StudySpec

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Written:
    """What a model wrote after a prompt."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class _Source:
    """A folder with an adapter, the study that it belongs to where there is one, and prompts of that study as the model
    is shown them."""

    adapter: Path
    spec: StudySpec | None = None
    prompts: tuple[str, ...] = ()


def is_text(source: Path) -> bool:
    """Whether a path stands for a LoRA of a language model: an adapter in peft's layout, a folder that `train` made, or
    the results of a study of one."""
    if any((place / ADAPTER_CONFIG).is_file() for place in (source, source / "lora")):
        return True
    is_study = sources.holds_study(source) or source.name == DATABASE or source.suffix in (".yaml", ".yml")
    return is_study and source.exists() and sources.study_file_of(source).trainer == "llm_lora"


def complete(
    source: Path,
    *,
    base: str | None = None,
    prompts: Sequence[str] = (),
    n: int = 4,
    seed: int = 0,
    max_tokens: int = 64,
    temperature: float = 0.0,
) -> list[Written]:
    """What a model with a LoRA writes after each prompt: the likeliest words at temperature 0, else drawn by seed.

    `source` is a results folder (its best LoRA), a folder that `train` made, or an adapter in peft's layout. A prompt
    is a user's turn where the LoRA was trained on turns. Without any, `n` of the study's held-out ones are answered.
    `base` is the study's, or what the adapter says, unless given; it is held as it was in training.

    Raises:
        InputError: there is no LoRA, or it does not fit the base.
    """
    found = _source(source)
    if not prompts and not found.prompts:
        raise InputError(f"{source}: no prompts are known; give some with --prompt")

    from trainables.lora.precision import autocast
    from trainables.lora.text import base as bases
    from trainables.lora.text.completions import Prompt
    from trainables.lora.text.completions import complete as write
    from trainables.lora.text.export import load_adapter, provenance_of, require_adapter

    require_adapter(found.adapter)
    told = provenance_of(found.adapter)
    precision, quantization = _held(found.spec, told)
    loaded = bases.load(base or _base(found), precision=precision, quantization=quantization)
    load_adapter(loaded, found.adapter)
    template = told.get("template")
    known = [Prompt(text, template == "chat") for text in found.prompts[:n]]
    shown = [Prompt.asking(loaded, prompt, template) for prompt in prompts] or known
    said = write(
        loaded, shown, autocast(loaded.device, precision), max_new_tokens=max_tokens, temperature=temperature, seed=seed
    )
    return [Written(prompt, text) for prompt, text in zip(prompts or found.prompts[:n], said, strict=True)]


def _base(found: _Source) -> str:
    """The base of the study, else what the adapter says."""
    from trainables.lora.text.export import base_of

    if found.spec is not None:
        return found.spec.base
    said = base_of(found.adapter)
    if said is None:
        raise InputError(f"{found.adapter}: says of no base what it was trained on; give it with --base")
    try:
        resolve(said)
    except InputError:
        raise InputError(
            f"{found.adapter}: says that it was trained on {said!r}, which is not here; give it with --base"
        ) from None
    return said


def _held(spec: StudySpec | None, told: Mapping[str, Any]) -> tuple[str, str]:
    """Precision and quantization of the base: as the adapter says that it was trained, else as its study has it."""
    params = told.get("params")
    known = (build.common(spec) if spec else {}) | (params if isinstance(params, dict) else {}) | dict(told)
    return str(known.get("precision", "fp32")), str(known.get("quantization", "none"))


def _source(source: Path) -> _Source:
    if (source / ADAPTER_CONFIG).is_file():
        return _Source(source)
    if (source / "lora" / ADAPTER_CONFIG).is_file():
        study = source / STUDY_FILE
        return _Source(source / "lora", sources.study_file_of(study) if study.is_file() else None)
    spec, record, folder = sources.finished_study(source)
    adapter = folder / "best"
    if not (adapter / ADAPTER_CONFIG).is_file():
        raise InputError(f"{adapter / ADAPTER_CONFIG} does not exist; must be there once a trial has completed")
    return _Source(adapter, spec, tuple(record.calibration.get("prompts") or ()))
