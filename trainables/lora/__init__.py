"""The LoRA engine: adapters over a frozen base, their optimizers, schedules, safety, caches, export and generation."""
