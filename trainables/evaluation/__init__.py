"""How good an image LoRA is: pure measures of images, and the score made of them.

Images are numpy arrays (N, H, W, 3), uint8 or floats in 0..1; a generated image that was not finite is NaN.
"""

from trainables.evaluation.clip_space import ClipSpace, load_clip
from trainables.evaluation.evaluator import Evaluation, Evaluator
from trainables.evaluation.failures import Failure, Thresholds, find_failures, mostly_failed
from trainables.evaluation.lpips_diversity import LpipsNetwork, load_lpips
from trainables.evaluation.references import Calibration, calibrate, resolve_targets
from trainables.evaluation.score import Measures, Score, ScoreWeights, score
from trainables.evaluation.style import Style
from trainables.evaluation.targets import Band, Targets

__all__ = [
    "Band",
    "Calibration",
    "ClipSpace",
    "Evaluation",
    "Evaluator",
    "Failure",
    "LpipsNetwork",
    "Measures",
    "Score",
    "ScoreWeights",
    "Style",
    "Targets",
    "Thresholds",
    "calibrate",
    "find_failures",
    "load_clip",
    "load_lpips",
    "mostly_failed",
    "resolve_targets",
    "score",
]
