"""The adapter that an image trial's configuration describes."""

from __future__ import annotations

from trainables.lora.adapters import Adapter, LoraShape, Part, require_layers
from trainables.lora.image_session import ImageSession
from trainables.lora.seats import Seats
from trainables.lora.settings import ranks_by_prefix
from trainables.lora.targets import CLIP_TEXT, UNET
from trainables.protocol import Params


def adapter_of(session: ImageSession, params: Params, seats: Seats | None = None) -> Adapter:
    """The adapter that a configuration describes: of the UNet, and of the text encoders where they have a rate."""
    shape = shape_of(params)
    require_layers(shape.ranks, session.base.models.values())
    which = str(params.get("network_targets", "all"))
    base = session.base
    parts = [Part("unet", base.unet, float(params["learning_rate"]), shape, UNET[which])]
    if (rate := float(params.get("text_encoder_lr", 0.0))) > 0:
        parts += [Part(name, model, rate, shape, CLIP_TEXT[which]) for name, model in base.text_encoders.items()]
    return Adapter(parts, loraplus_ratio=float(params.get("loraplus_lr_ratio", 1.0)), seats=seats)


def shape_of(params: Params) -> LoraShape:
    """Size and kind of an image LoRA; alpha of the convolutions keeps the proportion unless it is given."""
    rank, alpha = int(params["network_dim"]), float(params["network_alpha"])
    conv_rank = int(params.get("conv_dim", 0))
    return LoraShape(
        rank=rank,
        alpha=alpha,
        dropout=float(params.get("network_dropout", 0.0)),
        conv_rank=conv_rank,
        conv_alpha=float(params.get("conv_alpha", 0.0)) or alpha * conv_rank / rank,
        dora=bool(params.get("use_dora", False)),
        rslora=bool(params.get("use_rslora", False)),
        ranks=ranks_by_prefix(params, "network_dim"),
    )
