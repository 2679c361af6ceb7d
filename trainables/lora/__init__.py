"""The LoRA engine: adapters over a frozen base, their optimizers, schedules, safety, caches, export and generation."""

import logging

# It says at import that optional 4-bit CPU kernels are absent; nothing here uses them.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
