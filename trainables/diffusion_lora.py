"""LoRA of Stable Diffusion on captioned images: what a batch, a loss and a picture are. Optimization is the
engine's."""

from __future__ import annotations

import functools
import json
import math
import random
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.lora import dataset as datasets
from trainables.lora.choices import OPTIMIZERS, SCHEDULES
from trainables.protocol import Cause, Params, Report, TrialContext, TrialFailure
from tune_lora.errors import nearest

if TYPE_CHECKING:  # importing this module stays cheap: torch is loaded when a trial runs
    import torch

    from trainables.lora.adapters import Adapter
    from trainables.lora.engine import LoraEngine
    from trainables.lora.image_session import ImageSession

REQUIRED = ("network_dim", "network_alpha", "learning_rate", "max_train_epochs")
WHOLE = (
    "network_dim", "max_train_epochs", "train_batch_size", "gradient_accumulation_steps", "lr_scheduler_num_cycles",
)  # fmt: skip
NUMBERS = (
    "network_alpha", "learning_rate", "text_encoder_lr", "network_dropout", "min_snr_gamma", "max_grad_norm",
    "weight_decay", "lr_warmup_steps",
)  # fmt: skip
METRICS = (
    "score", "identity", "clip_consistency", "lpips_diversity", "brightness_mean", "brightness_std", "contrast_mean",
    "contrast_std", "saturation_mean", "failures", "style_term", "lpips_term", "clip_term", "val_loss", "train_loss",
    "learning_rate",
)  # fmt: skip
"""What the last report of a trial holds."""
OPTIONAL = (
    "text_encoder_lr",
    "optimizer_type",
    "lr_scheduler",
    "lr_scheduler_num_cycles",
    "lr_warmup_steps",
    "gradient_accumulation_steps",
    "max_grad_norm",
    "weight_decay",
    "min_snr_gamma",
    "network_dropout",
    "train_batch_size",
)
SPLIT_SEED = 0
LARGEST_HALF = 65504.0  # of IEEE half precision, in which LoRA files are exchanged


@dataclass(frozen=True)
class ImageEvaluation:
    """How a LoRA is judged by its images.

    `prompts` are filled up (cycled) or cut to `n_images`; without any, captions of held-out images serve. `steps` and
    `guidance` are the sampler's. `targets` is ``reference`` (calibrated on the user's images), ``spec`` (the user's
    numbers), or numbers by name; `weights` are the score's. `clip` and `lpips` are paths of real weights; without
    them the usual caches are searched.
    """

    prompts: tuple[str, ...] = ()
    n_images: int = 8
    seed: int = 1234
    steps: int = 15
    guidance: float = 4.0
    targets: str | Mapping[str, float] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    clip: str | None = None
    lpips: str | None = None


@dataclass(frozen=True)
class DiffusionLora:
    """The image LoRA trainer. `precision` is fp32 or bf16 (autocast; adapters stay fp32)."""

    base: str
    dataset: str
    dataset_settings: Mapping[str, Any] = field(default_factory=dict)
    held_out_share: float = 0.125
    evaluation: ImageEvaluation = field(default_factory=ImageEvaluation)
    precision: str = "fp32"
    trial_timeout_seconds: float | None = None
    budget_unit: str = "epoch"

    def horizon(self, params: Params) -> int:
        """Epochs of a trial."""
        return int(params["max_train_epochs"])

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration before anything is loaded; empty when nothing is."""
        missing = [name for name in REQUIRED if name not in params]
        mistakes = [f"{name} is missing; the image LoRA trainer needs {', '.join(REQUIRED)}" for name in missing]
        for name, known in (("optimizer_type", OPTIMIZERS), ("lr_scheduler", SCHEDULES)):
            if name in params and params[name] not in known:
                mistakes.append(f"{name}: got {params[name]!r}; {nearest(str(params[name]), known)}")
        return mistakes + _wrong_numbers(params)

    def load_dataset(self) -> datasets.Dataset:
        """The images, split the same way in every trial and every study.

        Raises:
            InputErrors: every unreadable image, missing caption or unknown setting.
        """
        return datasets.load(
            Path(self.dataset), self.dataset_settings, held_out_share=self.held_out_share, seed=SPLIT_SEED
        )

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """Trains one LoRA; one Report an epoch, with images and score where somebody decides and at the end."""
        from trainables.lora.image_session import session_for
        from trainables.lora.safety import out_of_memory_is_a_cause

        with out_of_memory_is_a_cause():
            session = session_for(self, context)
            trial = _Trial(self, session, context)
            try:
                yield from trial.epochs()
            finally:
                trial.close()

    def prepare(self, context: TrialContext) -> dict[str, Any]:
        """What is done once per study: fills the caches, calibrates the targets, judges the untrained base.

        Returns ``{"baseline": metrics, "calibration": {...}, "images": {label: path}}``.
        """
        from trainables.lora.image_session import session_for

        session = session_for(self, context)
        metrics: dict[str, float] = {"val_loss": session.validation_loss()}
        images, evaluation = session.evaluate()
        metrics |= evaluation.metrics
        path = context.folder / "base.png"
        session.write_grid(path, images, evaluation, "untrained base")
        reference = context.folder / "reference.png"
        session.write_references(reference)
        calibration = session.evaluator.describe() | {"prompts": list(session.prompts)}
        return {"baseline": metrics, "calibration": calibration, "images": {"base": path, "reference": reference}}


def _wrong_numbers(params: Params) -> list[str]:
    def is_number(name: str) -> bool:
        value = params[name]
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf

    def is_whole(name: str) -> bool:
        return is_number(name) and params[name] >= 1 and params[name] == int(params[name])

    counts = [name for name in WHOLE if name in params and not is_whole(name)]
    numbers = [name for name in NUMBERS if name in params and not is_number(name)]
    mistakes = [f"{name}: got {params[name]!r}; must be a whole number from 1" for name in counts]
    mistakes += [f"{name}: got {params[name]!r}; must be a number from 0, such as 0.0001 or 1.0e-4" for name in numbers]
    if "network_dropout" in params and "network_dropout" not in numbers and params["network_dropout"] >= 1:
        mistakes.append(f"network_dropout: got {params['network_dropout']!r}; must be a share from 0, below 1")
    return mistakes


class _Trial:
    """One LoRA from its first step (or its checkpoint) to its export."""

    def __init__(self, trainer: DiffusionLora, session: ImageSession, context: TrialContext) -> None:
        from trainables.lora.engine import EngineSettings, LoraEngine, steps_per_epoch

        self.trainer, self.session, self.context, self.params = trainer, session, context, context.params
        self.horizon = trainer.horizon(context.params)
        self.batch_size = int(context.params.get("train_batch_size", session.data.settings.batch_size))
        settings = EngineSettings.from_params(context.params)
        self.adapters = self._attach()
        try:
            per_epoch = steps_per_epoch(
                session.data.samples_per_epoch, self.batch_size, settings.gradient_accumulation_steps
            )
            self.engine: LoraEngine = LoraEngine(self.adapters, settings, per_epoch * self.horizon)
            self.done = self.engine.restore(context.restore) if context.restore else 0
        except BaseException:  # whatever went wrong, the shared base must be left clean
            self.close()
            raise
        self.started = time.monotonic()

    def _attach(self) -> list[Adapter]:
        from trainables.lora.adapters import TEXT_TARGETS, UNET_TARGETS, Adapter

        params, base = self.params, self.session.base
        rank, alpha = int(params["network_dim"]), float(params["network_alpha"])
        dropout = float(params.get("network_dropout", 0.0))
        adapters = [Adapter(base.unet, UNET_TARGETS, rank, alpha, float(params["learning_rate"]), dropout)]
        if float(params.get("text_encoder_lr", 0.0)) > 0:
            rate = float(params["text_encoder_lr"])
            adapters.append(Adapter(base.text_encoder, TEXT_TARGETS, rank, alpha, rate, dropout))
        try:
            return [adapter.attach(self.context.seed * 2 + index) for index, adapter in enumerate(adapters)]
        except BaseException:  # as when memory is short: the shared base must be left clean
            for adapter in adapters:
                adapter.detach()
            raise

    @property
    def trains_text(self) -> bool:
        """Whether the text encoder has an adapter."""
        return len(self.adapters) > 1

    def epochs(self) -> Generator[Report, None, None]:
        """One Report an epoch."""
        for epoch in range(self.done + 1, self.horizon + 1):
            metrics = {"train_loss": self._train(epoch), "val_loss": self._validate()}
            metrics["learning_rate"] = self.engine.rates[0]
            final, images = epoch == self.horizon, {}
            if final or epoch in self.context.decide_at:
                measured, path = self._look(epoch)
                metrics |= measured
                images = {f"epoch {epoch}": path}
            if final:
                self._export(metrics)
            self._check_time(epoch)
            yield Report(epoch, metrics, functools.partial(self.engine.save, budget=epoch), images, final)

    def _train(self, epoch: int) -> float:
        from trainables.lora.diffusion_loss import denoising_loss

        session, data = self.session, self.session.data
        # All that is random in an epoch comes from its own seed: a restored trial sees exactly what it would have seen.
        import torch

        rng = random.Random(f"{self.context.seed}:{epoch}")
        generator = torch.Generator().manual_seed(rng.randrange(2**62))
        torch.manual_seed(rng.randrange(2**62))  # for dropout
        order = [row for row, image in enumerate(data.train) for _ in range(image.repeats)]
        rng.shuffle(order)
        self._train_mode(True)
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        total = 0.0
        for index, rows in enumerate(batches):
            views = [rng.randrange(2) if data.settings.flip else 0 for _ in rows]
            clean = session.latents.sample(rows, views, generator)
            noise = torch.randn(clean.shape, generator=generator)
            steps = session.base.noise_schedule.config.num_train_timesteps
            timesteps = torch.randint(steps, (len(rows),), generator=generator)
            captions = [datasets.shown_caption(data.train[row].caption, data.settings, rng) for row in rows]
            with session.autocast():
                loss = denoising_loss(
                    session.base, clean, noise, timesteps, self._states(captions),
                    min_snr_gamma=float(self.params.get("min_snr_gamma", 0.0)),
                )  # fmt: skip
            total += self.engine.backward(loss, last=index == len(batches) - 1) * len(rows)
        return total / len(order)

    def _states(self, captions: list[str]) -> torch.Tensor:
        """Text states of the captions; from the cache while the text encoder is frozen."""
        import torch

        base = self.session.base
        if self.trains_text:
            return base.text_states(base.tokens(captions))
        if self.session.data.settings.shuffle_caption:  # hardly a caption comes twice: keeping them would fill memory
            with torch.no_grad():
                return base.text_states(base.tokens(captions))
        known = self.session.text_states()
        return torch.stack([known[caption] for caption in captions])

    def _train_mode(self, on: bool) -> None:
        for adapter in self.adapters:
            adapter.model.train(on)

    def _validate(self) -> float:
        self._train_mode(False)
        return self.session.validation_loss()

    def _look(self, epoch: int) -> tuple[dict[str, float], Path]:
        """Generates, measures, stores the grid; ends the trial when most images failed."""
        images, evaluation = self.session.evaluate()
        path = self.context.folder / "images" / f"epoch_{epoch:03d}.png"
        title = f"trial {self.context.folder.name}, epoch {epoch}"
        self.session.write_grid(path, images, evaluation, title)
        if evaluation.mostly_failed:
            count = sum(evaluation.failed)
            raise TrialFailure(
                Cause.BLACK_IMAGES, f"{count} of {len(images)} images failed at epoch {epoch}", evaluation.metrics
            )
        return dict(evaluation.metrics), path

    def _check_time(self, epoch: int) -> None:
        limit, spent = self.trainer.trial_timeout_seconds, time.monotonic() - self.started
        if limit is not None and spent > limit and epoch < self.horizon:
            raise TrialFailure(
                Cause.TRIAL_TIMEOUT, f"{spent:.0f} s at epoch {epoch} of {self.horizon}; the limit is {limit:.0f} s"
            )

    def _export(self, metrics: Mapping[str, float]) -> None:
        from trainables.lora.export import export_lora

        if (largest := max(adapter.largest() for adapter in self.adapters)) > LARGEST_HALF:
            raise TrialFailure(
                Cause.GRADIENT_EXPLOSION,
                f"an adapter weight reached {largest:.3g}, which a half-precision file cannot hold",
            )
        provenance = {
            "tune_lora_params": json.dumps(dict(self.params), sort_keys=True, default=str),
            "tune_lora_metrics": json.dumps(dict(metrics), sort_keys=True),
            "tune_lora_trial": self.context.folder.name,
            "tune_lora_seed": str(self.context.seed),
            "tune_lora_base": self.trainer.base if "/" not in self.trainer.base else Path(self.trainer.base).name,
            "tune_lora_base_sha256": self.session.base.identity,
            "tune_lora_dataset": self.session.data.name,
        }
        base = self.session.base
        export_lora(
            self.context.folder / "lora",
            unet=base.unet,
            text_encoder=base.text_encoder if self.trains_text else None,
            rank=int(self.params["network_dim"]),
            alpha=float(self.params["network_alpha"]),
            metadata=provenance,
        )

    def close(self) -> None:
        """Takes the adapters off the shared base, and leaves it in evaluation mode however the trial ended."""
        self._train_mode(False)
        for adapter in self.adapters:
            adapter.detach()
