"""What a configuration may say to the LoRA engine: optimization and the adapter's kind. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.lora.choices import OPTIMIZERS, PRECISIONS, SCHEDULES, TARGETS
from trainables.protocol import Params
from trainables.rules import RATE, SHARE, TRUTH, Rule, number, one_of, whole


@dataclass(frozen=True)
class EngineSettings:
    """What a search space may say about optimization. Steps are optimizer steps.

    `lr_step_share` is the share of the trial between two drops of the ``step`` schedule, `lr_step_gamma` what each
    leaves; `lr_scheduler_power` is that of ``polynomial``. `max_grad_norm` 0 does not clip. `ema_decay` 0 keeps no
    average. `loraplus_lr_ratio` multiplies the rate of the B matrices.
    """

    optimizer_type: str = "AdamW"
    lr_scheduler: str = "cosine"
    lr_scheduler_num_cycles: int = 1
    lr_scheduler_power: float = 1.0
    lr_step_share: float = 0.25
    lr_step_gamma: float = 0.5
    lr_warmup_steps: int = 0
    gradient_accumulation_steps: int = 1
    max_grad_norm: float = 1.0
    weight_decay: float = 0.01
    ema_decay: float = 0.0
    loraplus_lr_ratio: float = 1.0

    @classmethod
    def from_params(cls, params: Params) -> EngineSettings:
        """Picks the settings of this class out of a configuration; the rest is somebody else's."""
        return cls(**{name: params[name] for name in cls.__dataclass_fields__ if name in params})


ENGINE_RULES: Mapping[str, Rule] = {
    "optimizer_type": one_of(OPTIMIZERS),
    "lr_scheduler": one_of(SCHEDULES),
    "lr_scheduler_num_cycles": whole(1),
    "lr_scheduler_power": number(above=0),
    "lr_step_share": number(above=0, most=1),
    "lr_step_gamma": number(above=0, most=1),
    "lr_warmup_steps": whole(0),
    "gradient_accumulation_steps": whole(1),
    "max_grad_norm": number(0),
    "weight_decay": number(0),
    "ema_decay": SHARE,
    "loraplus_lr_ratio": number(above=0),
    "learning_rate": RATE,
}
"""Of `EngineSettings`, and the learning rate itself."""

KIND_RULES: Mapping[str, Rule] = {
    "use_dora": TRUTH,
    "use_rslora": TRUTH,
    "precision": one_of(PRECISIONS),
    "gradient_checkpointing": TRUTH,
}
"""What both trainers may say about the adapter and its arithmetic."""

IMAGE_RULES: Mapping[str, Rule] = {
    **ENGINE_RULES,
    **KIND_RULES,
    "max_train_epochs": whole(1),
    "network_dim": whole(1),
    "network_alpha": number(above=0),
    "network_dim.*": whole(0),
    "network_dropout": SHARE,
    "network_targets": one_of(TARGETS),
    "conv_dim": whole(0),
    "conv_alpha": number(0),
    "text_encoder_lr": RATE,
    "train_batch_size": whole(1),
    "min_snr_gamma": number(0),
    "noise_offset": number(0),
    "zero_terminal_snr": TRUTH,
}
"""Of the image trainer. ``network_dim.down_blocks.1`` and the like are ranks of the layers whose name begins so."""


def ranks_by_prefix(params: Params, name: str) -> dict[str, int]:
    """Ranks by prefix of the layers' names: of ``network_dim.mid_block: 4`` the entry ``mid_block: 4``."""
    return {key.removeprefix(f"{name}."): int(value) for key, value in params.items() if key.startswith(f"{name}.")}
