"""LoRA of Stable Diffusion on captioned images: what a batch, a loss and a picture are. Optimization is the
engine's."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables import demos, rules
from trainables.fingerprints import fingerprint
from trainables.lora import dataset as datasets
from trainables.lora.paths import prediction_of, resolve_base, zero_terminal_mistake
from trainables.lora.settings import IMAGE_RULES
from trainables.preference import Preference
from trainables.protocol import Params, Report, TrialContext
from tune_lora.errors import InputError

if TYPE_CHECKING:
    from trainables.lora.course import Course
    from trainables.lora.pack import Pack

REQUIRED = ("network_dim", "network_alpha", "learning_rate", "max_train_epochs")
METRICS = (
    "score", "identity", "clip_consistency", "lpips_diversity", "brightness_mean", "brightness_std", "contrast_mean",
    "contrast_std", "saturation_mean", "failures", "style_term", "lpips_term", "clip_term", "val_loss", "train_loss",
    "learning_rate",
)  # fmt: skip
"""What the last report of a trial holds."""
REJUDGED = tuple(name for name in METRICS if name not in ("val_loss", "train_loss", "learning_rate"))
"""What new images of a finished LoRA measure again."""
SPLIT_SEED = 0


@dataclass(frozen=True)
class ImageEvaluation:
    """How a LoRA is judged by its images.

    `prompts` are filled up (cycled) or cut to `n_images`; without any, captions of held-out images serve. `steps` and
    `guidance` are the sampler's. `targets` is ``reference`` (calibrated on the user's images), ``spec`` (the user's
    numbers), or numbers by name; `weights` are the score's, `preference` is what people were found to like. `clip` and
    `lpips` are paths of real weights; without them the usual caches are searched.
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
    preference: Preference | None = None


@dataclass(frozen=True)
class DiffusionLora:
    """The image LoRA trainer. `precision` is fp32, bf16 or fp16 of the frozen models (adapters stay fp32)."""

    base: str
    dataset: str
    dataset_settings: Mapping[str, Any] = field(default_factory=dict)
    held_out_share: float = 0.125
    evaluation: ImageEvaluation = field(default_factory=ImageEvaluation)
    precision: str = "fp32"
    prediction_type: str | None = None
    trial_timeout_seconds: float | None = None
    budget_unit: str = "epoch"

    def horizon(self, params: Params) -> int:
        """Epochs of a trial."""
        return int(params["max_train_epochs"])

    def check(self, params: Params) -> list[str]:
        """What is wrong with a configuration before anything is loaded; empty when nothing is."""
        missing = [name for name in REQUIRED if name not in params]
        mistakes = [f"{name} is missing; the image LoRA trainer needs {', '.join(REQUIRED)}" for name in missing]
        if params.get("zero_terminal_snr") is True and (predicts := self._predicts()) is not None:
            mistakes += filter(None, [zero_terminal_mistake(predicts)])
        return mistakes + rules.mistakes(params, IMAGE_RULES)

    def _predicts(self) -> str | None:
        """What the base predicts; None where there is no such base."""
        try:
            return prediction_of(resolve_base(self.base), self.prediction_type)
        except InputError:
            return None

    def load_dataset(self) -> datasets.Dataset:
        """The images, split the same way in every trial and every study.

        Raises:
            InputErrors: every unreadable image, missing caption or unknown setting.
        """
        path = demos.at_hand(Path(self.dataset))
        return datasets.load(path, self.dataset_settings, held_out_share=self.held_out_share, seed=SPLIT_SEED)

    def fingerprint(self) -> str:
        """Of the images, their captions and how they are shown; what a file is called does not count."""
        found = self.load_dataset()
        return fingerprint(
            sorted(repr((one.digest, one.caption, one.target, one.repeats, one.views)) for one in images)
            for images in (found.train, found.held_out)
        )

    def run(self, context: TrialContext) -> Generator[Report, None, None]:
        """Trains one LoRA; one Report an epoch, with images and score where somebody decides and at the end."""
        from trainables.lora import trial
        from trainables.lora.image_session import session_for
        from trainables.lora.image_task import ImageTask
        from trainables.lora.safety import out_of_memory_is_a_cause

        with out_of_memory_is_a_cause():
            task = ImageTask(self, session_for(self, context), context)
            try:
                yield from trial.run(task, task.engine, context, self.course(context.params))
            finally:
                task.close()

    def course(self, params: Params) -> Course:
        """How far a trial goes: it speaks at every epoch."""
        from trainables.lora.course import Course

        return Course(self.horizon(params), self.budget_unit, 1, self.trial_timeout_seconds)

    def pack(self, context: TrialContext) -> Pack:
        """Room for several trials on one base, the context's; nobody is seated yet."""
        from trainables.lora.image_ground import ImageGround
        from trainables.lora.pack import Pack

        return Pack(ImageGround(self, context))

    @property
    def rejudged(self) -> tuple[str, ...]:
        """Metrics that `rejudge` measures."""
        return REJUDGED

    def rejudge(self, made: Path | None, context: TrialContext) -> dict[str, float]:
        """Judges the LoRA in a trial's folder, or the base alone, by prompts and noise that no trial was judged by; see
        `trainables.lora.rejudging`."""
        from trainables.lora.rejudging import rejudged
        from trainables.lora.safety import out_of_memory_is_a_cause

        with out_of_memory_is_a_cause():
            return rejudged(self, made, context)

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
