"""tune-lora: hyperparameter search for fine-tunes that cost real GPU hours."""

__version__ = "0.1.0"
