"""Text for the LoRA engine: language models, instruction data, packing, the loss on answers, and what is exported."""
