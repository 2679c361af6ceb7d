"""Names that a search space may use. Loads no torch, so that a study file is checked before anything starts."""

OPTIMIZERS = ("AdamW", "AdamW8bit", "Lion", "Adafactor", "Prodigy")
SCHEDULES = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "step")
PRECISIONS = ("fp32", "bf16", "fp16")
TARGETS = ("attention", "all")
