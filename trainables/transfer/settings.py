"""What a configuration of the two-stage trainer may say. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.protocol import Params
from trainables.rules import RATE, SHARE, TRUTH, Rule, number, whole

REQUIRED = ("encoder_hidden_dims", "encoder_latent_dim", "lr_pretrain")
_WIDTHS = re.compile(r"[1-9][0-9]{0,4}(_[1-9][0-9]{0,4}){0,7}")

RULES: Mapping[str, Rule] = {
    "encoder_hidden_dims": Rule(
        lambda value: isinstance(value, str) and _WIDTHS.fullmatch(value) is not None,
        'up to eight widths joined by "_", in quotes, such as "512_256"',
    ),
    "encoder_latent_dim": whole(1),
    "encoder_dropout": SHARE,
    "encoder_input_dropout": SHARE,
    "use_batchnorm": TRUTH,
    "chi_head_hidden_dim": whole(1),
    "chi_head_dropout": SHARE,
    "lr_pretrain": RATE,
    "weight_decay": number(),
    "stage1_epochs": whole(1),
    "stage1_batch_size": whole(2),
    "stage1_patience": whole(0),
    "freeze_encoder_stage2": TRUTH,
    "stage2_head_hidden_dim": whole(1),
    "stage2_dropout": SHARE,
    "lr_finetune": RATE,
    "lr_finetune_encoder": RATE,
    "stage2_weight_decay": number(),
    "stage2_epochs": whole(1),
    "stage2_final_epochs": whole(1),
    "stage2_final_patience": whole(0),
    "stage2_batch_size": whole(2),
    "stage2_sees_prediction": TRUTH,
    "lambda_exp": number(),
    "lambda_sol": number(),
    "class_weight_pos": number(above=0),
}
"""`stage1_patience` 0 and `stage2_final_patience` 0: no early stopping."""


@dataclass(frozen=True)
class Stage1Settings:
    """All settings that touch stage 1, and nothing else: the cache tells results apart by them. A patience is in
    epochs without a better held-out error."""

    hidden: tuple[int, ...] = (512, 256)
    latent: int = 128
    dropout: float = 0.2
    input_dropout: float = 0.0
    norm: bool = False
    head_hidden: int = 64
    head_dropout: float = 0.1
    rate: float = 1e-3
    decay: float = 1e-4
    epochs: int = 100
    batch_size: int = 256
    patience: int = 15

    @classmethod
    def of(cls, params: Params) -> Stage1Settings:
        """Those of a configuration, with defaults for what it does not say."""
        given = _given(
            params,
            latent=("encoder_latent_dim", int),
            dropout=("encoder_dropout", float),
            input_dropout=("encoder_input_dropout", float),
            norm=("use_batchnorm", bool),
            head_hidden=("chi_head_hidden_dim", int),
            head_dropout=("chi_head_dropout", float),
            rate=("lr_pretrain", float),
            decay=("weight_decay", float),
            epochs=("stage1_epochs", int),
            batch_size=("stage1_batch_size", int),
            patience=("stage1_patience", int),
        )
        if "encoder_hidden_dims" in params:
            given["hidden"] = tuple(int(width) for width in params["encoder_hidden_dims"].split("_"))
        return cls(**given)


@dataclass(frozen=True)
class Stage2Settings:
    """All settings of stage 2. `encoder_rate` is the encoder's learning rate where it is not frozen."""

    frozen: bool = True
    head_hidden: int = 64
    dropout: float = 0.1
    rate: float = 1e-3
    encoder_rate: float = 1e-4
    decay: float = 1e-4
    epochs: int = 20
    final_epochs: int = 200
    final_patience: int = 30
    batch_size: int = 64
    sees_prediction: bool = False
    lambda_exp: float = 3.0
    lambda_sol: float = 1.0
    class_weight_pos: float = 5.0

    @classmethod
    def of(cls, params: Params) -> Stage2Settings:
        """Those of a configuration, with defaults for what it does not say. The encoder learns at a tenth of the
        heads' rate unless it is said."""
        given = _given(
            params,
            frozen=("freeze_encoder_stage2", bool),
            head_hidden=("stage2_head_hidden_dim", int),
            dropout=("stage2_dropout", float),
            rate=("lr_finetune", float),
            encoder_rate=("lr_finetune_encoder", float),
            decay=("stage2_weight_decay", float),
            epochs=("stage2_epochs", int),
            final_epochs=("stage2_final_epochs", int),
            final_patience=("stage2_final_patience", int),
            batch_size=("stage2_batch_size", int),
            sees_prediction=("stage2_sees_prediction", bool),
            lambda_exp=("lambda_exp", float),
            lambda_sol=("lambda_sol", float),
            class_weight_pos=("class_weight_pos", float),
        )
        if "rate" in given:
            given.setdefault("encoder_rate", given["rate"] / 10)
        return cls(**given)


def _given(params: Params, **fields: tuple[str, type]) -> dict[str, Any]:
    return {field: kind(params[name]) for field, (name, kind) in fields.items() if name in params}
