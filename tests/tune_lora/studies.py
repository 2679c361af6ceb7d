"""A small space for studies in tests."""

from __future__ import annotations

from typing import Any

RATES: dict[str, Any] = {
    "name": "rates",
    "parameters": {
        "learning_rate": {"type": "loguniform", "low": 1e-5, "high": 1e-1},
        "max_train_epochs": {"type": "categorical", "choices": [4, 6]},
    },
}
