"""LoRA of a UNet as diffusers' ``train_text_to_image_lora.py`` does it, as a plain loop: every step opens its images,
encodes them with the VAE and their captions with the text encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from diffusers.optimization import get_scheduler
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import plain_engine
from trainables.lora.base import Base
from trainables.lora.dataset import CaptionedImage

TARGETS = ("to_k", "to_q", "to_v", "to_out.0")


class _Captioned(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, base: Base, images: Sequence[CaptionedImage], resolution: int) -> None:
        self._images, self._tokenizer = images, base.pipeline.tokenizer
        self._transform = transforms.Compose(
            [
                transforms.Resize(resolution, interpolation=transforms.InterpolationMode.LANCZOS),
                transforms.CenterCrop(resolution),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = self._images[index]
        with Image.open(image.path) as opened:
            pixels = self._transform(opened.convert("RGB"))
        ids = self._tokenizer(image.caption, padding="max_length", truncation=True, return_tensors="pt").input_ids[0]
        return {"pixels": pixels, "ids": ids}


class PlainLora:
    """peft's adapter on the base's UNet, AdamW, cosine schedule, clipping at 1; `detach` takes it off again."""

    def __init__(
        self, base: Base, images: Sequence[CaptionedImage], *, resolution: int, batch_size: int, rank: int, steps: int
    ) -> None:
        self.base, self._dtype = base, base.unet.dtype
        plain_engine.with_peft(base.unet, TARGETS, rank, rank, init_lora_weights="gaussian")
        self.parameters = plain_engine.parameters(base.unet)
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=1e-2)
        self.rates = get_scheduler("cosine", self.optimizer, num_warmup_steps=0, num_training_steps=steps)
        data = _Captioned(base, images, resolution)
        self._loader = DataLoader(data, batch_size, shuffle=True, generator=torch.Generator().manual_seed(0))
        base.unet.train()

    def batches(self) -> Iterator[dict[str, torch.Tensor]]:
        """Epoch after epoch."""
        while True:
            yield from self._loader

    def step(self, batch: dict[str, torch.Tensor]) -> float:
        """One optimizer step; returns the loss."""
        base, schedule = self.base, self.base.noise_schedule
        pixels, ids = batch["pixels"].to(base.device), batch["ids"].to(base.device)
        with torch.no_grad():
            latents = base.vae.encode(pixels.to(base.vae.dtype)).latent_dist.sample() * base.vae.config.scaling_factor
            latents = latents.to(self._dtype)
            states = base.pipeline.text_encoder(ids)[0]
        noise = torch.randn_like(latents)
        timesteps = torch.randint(schedule.config.num_train_timesteps, (len(latents),), device=base.device)
        half = self._dtype != torch.float32
        with torch.autocast(base.device.type, self._dtype) if half else nullcontext():
            noisy = schedule.add_noise(latents, noise, timesteps)
            predicted = base.unet(noisy, timesteps, states, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.rates.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def detach(self) -> None:
        """Takes peft's layers off the base."""
        from diffusers.utils.peft_utils import recurse_remove_peft_layers

        recurse_remove_peft_layers(self.base.unet)
        self.base.unet.eval()
