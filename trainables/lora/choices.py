"""Names that a search space may use. Loads no torch, so that a study file is checked before anything starts."""

OPTIMIZERS = ("AdamW", "AdamW8bit", "Lion", "Adafactor")
SCHEDULES = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")
