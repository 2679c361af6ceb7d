"""A two-layer Qwen2 with a tokenizer of its own, made here: everything of text training but the size."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CHAT = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
FRUITS = ("apple", "pear", "plum", "cherry", "fig", "grape", "lemon", "melon", "quince", "peach", "mango", "lime")
COLOURS = ("red", "green", "blue", "black", "yellow", "violet", "white", "golden")


def examples() -> list[dict[str, str]]:
    """Questions with answers that can be learnt: every fruit in every colour."""
    return [
        {"prompt": f"What is a {colour} {fruit}?", "completion": f"It is a {fruit}, and it is {colour}."}
        for fruit in FRUITS
        for colour in COLOURS
    ]


def write_data(path: Path, rows: list[dict] | None = None) -> Path:
    """The examples, or other rows, as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in (rows or examples())), "utf-8")
    return path


def tokenizer(chat: str | None = CHAT) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the examples."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    texts = [f"{row['prompt']} {row['completion']} system user assistant" for row in examples()]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", pad_token="<|end|>", chat_template=chat)


def model(vocabulary: int, **changes) -> Qwen2ForCausalLM:
    """Two layers of width 32, random by seed."""
    torch.manual_seed(0)
    config = Qwen2Config(
        **{
            "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
            "tie_word_embeddings": True, "initializer_range": 0.1, "eos_token_id": 1, "pad_token_id": 1,
            "bos_token_id": None,
        }
        | changes
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


WIDE = {"hidden_size": 64, "intermediate_size": 128}
"""4-bit weights come in blocks of 64."""


def write_model(folder: Path, chat: str | None = CHAT, **changes) -> Path:
    """Model and tokenizer as a folder in Hugging Face's layout."""
    made = tokenizer(chat)
    model(len(made), **changes).save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
