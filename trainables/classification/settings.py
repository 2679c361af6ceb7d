"""What a classifier's configuration may say: one table of settings, each with a dotted name, a flat one, a rule and
what holds where it is left out. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainables.protocol import Params
from trainables.rules import RATE, SHARE, TRUTH, Rule, mistakes, number, one_of, whole

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("none", "step", "linear", "cosine", "plateau")
TORCHVISION = ("resnet18", "resnet34", "resnet50", "efficientnet_b0")
ARCHITECTURES = (*TORCHVISION, "resnet_mini")
TEXT_ENCODERS = ("mlp", "char_cnn", "transformer")
ANY = "*"
"""As an architecture: weights for whichever is trained."""
KINDS = ("image", "image_text", "text", "tabular")
"""Of data."""

WIDTHS = Rule(
    lambda value: isinstance(value, str) and bool(re.fullmatch(r"[1-9]\d*(_[1-9]\d*)*", value)),
    "whole numbers joined by '_', such as 128_64",
)


@dataclass(frozen=True)
class Setting:
    """One setting. `alias` is its flat name, `kinds` the data that it means something for. A default of None is worked
    out from other settings."""

    name: str
    alias: str
    rule: Rule
    default: Any
    kinds: tuple[str, ...] = KINDS


_IMAGES = ("image", "image_text")
_TEXTS = ("text", "image_text")

SETTINGS: tuple[Setting, ...] = (
    Setting("optimizer.type", "optimizer", one_of(OPTIMIZERS), "adam"),
    Setting("optimizer.lr", "lr", RATE, 1e-3),
    Setting("optimizer.lr_backbone", "lr_backbone", RATE, None, _IMAGES),
    Setting("optimizer.lr_new", "lr_new", RATE, None, _IMAGES),
    Setting("optimizer.momentum", "momentum", SHARE, 0.9),
    Setting("optimizer.weight_decay", "weight_decay", number(such_as="0.0001"), 1e-4),
    Setting("training.batch_size", "batch_size", whole(2), 32),
    Setting("training.epochs", "max_epochs", whole(1), 10),
    Setting("training.grad_clip", "grad_clip", number(), 1.0),
    Setting("training.label_smoothing", "label_smoothing", SHARE, 0.0),
    Setting("training.early_stopping", "early_stopping", whole(0), 0),
    Setting("training.precision", "precision", one_of(("fp32", "bf16", "fp16")), "fp32"),
    Setting("scheduler.type", "lr_schedule", one_of(SCHEDULES), "none"),
    Setting("scheduler.step_size", "step_size", whole(1), 15),
    Setting("scheduler.gamma", "gamma", number(above=0, most=1), 0.1),
    Setting("scheduler.floor", "lr_floor", number(such_as="1.0e-5"), 1e-5),
    Setting("scheduler.patience", "lr_patience", whole(0), 5),
    Setting("model.architecture", "architecture", one_of(ARCHITECTURES), "resnet_mini", _IMAGES),
    Setting("model.widths", "widths", WIDTHS, "16_32_64_128", _IMAGES),
    Setting("model.dropout", "dropout", SHARE, 0.1),
    Setting("model.latent_dim", "latent_dim", whole(2), None),
    Setting("model.head_hidden", "head_hidden", whole(1), None),
    Setting("model.hidden", "hidden", WIDTHS, "128_64", ("tabular",)),
    Setting("model.text_encoder", "text_encoder", one_of(TEXT_ENCODERS), "mlp", _TEXTS),
    Setting("model.text_length", "text_length", whole(8), 128, _TEXTS),
    Setting("model.fusion", "fusion", one_of(("concat", "mean")), "concat", ("image_text",)),
    Setting("data.image_size", "image_size", whole(8), 64, _IMAGES),
    Setting("data.flip", "flip", TRUTH, True, _IMAGES),
    Setting("data.crop", "crop", TRUTH, True, _IMAGES),
    Setting("data.n_classes", "n_classes", whole(2), None),
    Setting("anchors.lambda_fit", "lambda_fit", number(), 0.0),
    Setting("anchors.lambda_sep", "lambda_sep", number(), 0.0),
    Setting("anchors.eps", "anchor_eps", number(above=0), 1e-4),
    Setting("anchors.sep_samples_per_class", "sep_samples_per_class", whole(1), 16),
    Setting("anchors.sep_method", "sep_method", one_of(("classifier",)), "classifier"),
    Setting("groupdro.enabled", "groupdro_enabled", TRUTH, False),
    Setting("groupdro.eta", "groupdro_eta", number(above=0), 0.01),
    Setting("groupdro.gamma", "groupdro_gamma", SHARE, 0.9),
    Setting("groupdro.warmup_epochs", "groupdro_warmup_epochs", whole(0), 2),
    Setting("groupdro.update_mode", "groupdro_update_mode", one_of(("exp_smooth",)), "exp_smooth"),
    Setting("groupdro.objective", "groupdro_objective", one_of(("weighted",)), "weighted"),
)
"""The table."""

RULES: Mapping[str, Rule] = {name: setting.rule for setting in SETTINGS for name in (setting.name, setting.alias)}
"""By both names."""
SAID_TWICE = tuple((setting.name, setting.alias) for setting in SETTINGS)
"""Names that say the same."""
LATENT_DIM = 64
"""Of texts and of images with texts, where no `model.latent_dim` is set."""


@dataclass(frozen=True)
class Chosen:
    """A configuration by dotted names, defaults filled in."""

    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def epochs(self) -> int:
        """Of one training."""
        return int(self["training.epochs"])

    @property
    def rates(self) -> tuple[float, float]:
        """The learning rate of a pretrained backbone and that of new layers."""
        usual = self["optimizer.lr"]
        backbone, new = self["optimizer.lr_backbone"], self["optimizer.lr_new"]
        return float(usual if backbone is None else backbone), float(usual if new is None else new)

    @property
    def has_anchors(self) -> bool:
        """Whether classes have anchors in latent space."""
        return bool(self["anchors.lambda_fit"] or self["anchors.lambda_sep"])

    def latent_dim(self, kind: str) -> int | None:
        """Size of the latent space; None: the head stands on the encoder's own features."""
        asked = self["model.latent_dim"]
        if asked is not None:
            return int(asked)
        return LATENT_DIM if kind in _TEXTS or self.has_anchors else None

    def head_hidden(self, kind: str) -> int | None:
        """Units of the head's hidden layer: twice the latent space unless set, none where there is no latent space."""
        asked, latent = self["model.head_hidden"], self.latent_dim(kind)
        if asked is not None:
            return int(asked)
        return None if latent is None else 2 * latent


def chosen(params: Params, precision: str = "fp32") -> Chosen:
    """The configuration that `check` found nothing wrong with; `precision` holds unless it says its own."""
    values = {setting.name: setting.default for setting in SETTINGS} | {"training.precision": precision}
    names = {setting.alias: setting.name for setting in SETTINGS}
    return Chosen(values | {names.get(name, name): value for name, value in params.items()})


def weights_of(weights: Mapping[str, str], architecture: str) -> str | None:
    """The path of the weights that an architecture starts from, if there are any."""
    return weights.get(architecture, weights.get(ANY))


def check(params: Params, kind: str | None = None) -> list[str]:
    """What is wrong with a configuration, one line each; with the `kind` of data also what means nothing for it."""
    found = mistakes(params, RULES)
    for setting in SETTINGS:
        given = [name for name in (setting.name, setting.alias) if name in params]
        if len(given) == 2:
            found.append(
                f"{setting.alias}: got {params[setting.alias]!r} beside {setting.name} {params[setting.name]!r}, which "
                "is the same setting; must be given once"
            )
        elif given and kind is not None and kind not in setting.kinds:
            found.append(
                f"{given[0]}: got {params[given[0]]!r}, but the data is of kind {kind}; must be left out (it is for "
                f"{', '.join(setting.kinds)})"
            )
    return found or _missing(params)


def _missing(params: Params) -> list[str]:
    if {"optimizer.lr", "lr"} & params.keys():
        return []
    if {"optimizer.lr_backbone", "lr_backbone"} & params.keys() and {"optimizer.lr_new", "lr_new"} & params.keys():
        return []
    return ["optimizer.lr is missing; the classifier needs it (or optimizer.lr_backbone and optimizer.lr_new)"]
