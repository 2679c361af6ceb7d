"""Trials that `benchmarks.packing` packs, and how each is made by itself."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SEQUENCE = 128
SHARED: dict[str, Any] = {}
IMAGE: Mapping[str, Any] = {
    "network_dim": 8,
    "network_alpha": 5.0,
    "learning_rate": 2e-3,
    "text_encoder_lr": 5e-4,
    "max_train_epochs": 1000,
    "train_batch_size": 1,
    "max_grad_norm": 0.8,
    "min_snr_gamma": 5.0,
    "lr_scheduler": "cosine",
}
"""As in the space lora_tiny."""
IMAGES = [
    {**IMAGE, "network_dim": rank, "network_alpha": rank * 0.5, "gradient_accumulation_steps": size}
    for rank, size in ((4, 1), (8, 2), (16, 1), (32, 2), (4, 1), (8, 1), (16, 2), (32, 1))
]
"""The ranks and accumulations of lora_tiny, with AdamW."""
EIGHT_BIT = [case | ({"optimizer_type": "AdamW8bit"} if number % 2 else {}) for number, case in enumerate(IMAGES)]
"""The same, every other one with AdamW8bit, whose step on a CPU takes longer than the rest of a trial's."""
_COURSE = {**IMAGE, "lr_warmup_steps": 5, "max_train_epochs": 8}
OPTIMIZERS: Mapping[str, Mapping[str, Any]] = {
    "AdamW": {"rounds": False, "params": {**_COURSE, "network_dim": 4}},
    "Adafactor": {
        "rounds": False,
        "params": {**_COURSE, "optimizer_type": "Adafactor", "gradient_accumulation_steps": 2, "conv_dim": 4},
    },
    "Prodigy": {
        "rounds": False,
        "params": {**_COURSE, "optimizer_type": "Prodigy", "learning_rate": 1.0, "text_encoder_lr": 0.0},
    },
    "AdamW, accumulation 3": {
        "rounds": False,
        "params": {**_COURSE, "network_dim": 16, "gradient_accumulation_steps": 3, "network_targets": "attention"},
    },
    "AdamW8bit": {"rounds": True, "params": {**_COURSE, "optimizer_type": "AdamW8bit", "network_dim": 32}},
    "Lion": {"rounds": True, "params": {**_COURSE, "optimizer_type": "Lion", "learning_rate": 2e-4}},
}
"""By what it is; `rounds`: the optimizer keeps rounded state, or only the sign of a gradient."""
TEXTS = [
    {"lora_rank": rank, "lora_alpha": 2 * rank, "learning_rate": 2e-4, "batch_size": 1, "max_steps": 10_000}
    for rank in (8, 16, 16, 32)
]


def _context(params: Mapping[str, Any], seed: int, threads: int) -> Any:
    from trainables.protocol import TrialContext

    return TrialContext(params, Path(tempfile.mkdtemp(prefix="bench-")), seed=seed, threads=threads, shared=SHARED)


def images_on(cases: Sequence[Mapping[str, Any]], *, threads: int) -> tuple[Any, list[Any]]:
    """The image trainer on tiny-sd and the drawn character, with a context for each trial."""
    from trainables import demo_character
    from trainables.diffusion_lora import DiffusionLora, ImageEvaluation

    SHARED.clear()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    demo_character.write_dataset(folder, count=24)
    trainer = DiffusionLora("tiny-sd", str(folder), evaluation=ImageEvaluation(n_images=2, steps=2))
    return trainer, [_context(params, seed, threads) for seed, params in enumerate(cases)]


def text_trainer() -> Any:
    """The text trainer on SmolLM2-135M's shapes with random weights, all rows of one length."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from trainables.llm_lora import LlmLora
    from trainables.lora.text.settings import TextSettings

    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        [], trainers.BpeTrainer(special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False)
    )
    PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>").save_pretrained(folder)
    data = folder / "texts.jsonl"  # a token a character: each is cut into whole windows
    lines = [json.dumps({"text": chr(97 + number) * (SEQUENCE * 8)}) for number in range(16)]
    data.write_text("\n".join(lines) + "\n", "utf-8")
    settings = TextSettings(format="text", max_length=SEQUENCE, trained="all", held_out_limit=2)
    return LlmLora(str(folder), str(data), settings, report_every=10_000)


def text_on(trainer: Any, cases: Sequence[Mapping[str, Any]], *, threads: int) -> tuple[Any, list[Any]]:
    """A text trainer with a context for each trial."""
    SHARED.clear()
    return trainer, [_context(params, seed, threads) for seed, params in enumerate(cases)]


def solo(trainer: Any, context: Any) -> tuple[Any, Any]:
    """Task and trial by itself, on the base that the pack would have."""
    from trainables.diffusion_lora import DiffusionLora
    from trainables.lora.trial import Trial

    if isinstance(trainer, DiffusionLora):
        from trainables.lora.image_session import session_for
        from trainables.lora.image_task import ImageTask

        task: Any = ImageTask(trainer, session_for(trainer, context), context)
    else:
        from trainables.lora.text.session import session_for as text_session_for
        from trainables.lora.text.task import TextTask

        task = TextTask(trainer, text_session_for(trainer, context, context.params), context)
    return task, Trial(task, task.engine, context, trainer.course(context.params))
