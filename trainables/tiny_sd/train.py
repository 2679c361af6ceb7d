"""Trains tiny-sd from nothing: autoencoder, CLIP, denoiser. Each stage continues from its last checkpoint.

python -m trainables.tiny_sd.train vae  --data DATA --work WORK
python -m trainables.tiny_sd.train clip --data DATA --work WORK
python -m trainables.tiny_sd.train unet --data DATA --work WORK --steps 15000
python -m trainables.tiny_sd.train ship --work WORK
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from trainables.tiny_sd import WEIGHTS, architecture, data

LOG_EVERY = 100


def learning_rate(step: int, steps: int, peak: float, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine to 2% of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, steps - warmup))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# --- autoencoder -----------------------------------------------------------------------------------------------------


def _edges(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return image[..., 1:, :] - image[..., :-1, :], image[..., 1:] - image[..., :-1]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 of the pixels and of their edges at two scales: sharp outlines without a network that has to be fetched."""
    loss = (output - target).abs().mean()
    for scale in (1, 2):
        small, wanted = (F.avg_pool2d(x, scale) if scale > 1 else x for x in (output, target))
        loss = loss + 0.5 * sum((a - b).abs().mean() for a, b in zip(_edges(small), _edges(wanted), strict=True))
    return loss


@torch.no_grad()
def vae_error(vae: AutoencoderKL, renders: list[data.Render]) -> float:
    """Mean absolute error of reconstructed held-out renders, in 0..1."""
    images = torch.stack([data.view(render) for render in renders]).to(vae.device)
    output = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    return float((output - images).abs().mean() / 2)


def train_vae(folder: Path, work: Path, minutes: float) -> None:
    train, held_out = data.load(folder)
    vae = architecture.build_vae().to(device()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=1e-3, weight_decay=1e-4)
    rng, start, step = random.Random(1), time.monotonic(), 0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        set_rate(optimizer, learning_rate(int(share * 1000), 1000, 2e-3, warmup=30))
        images = torch.stack([data.view(render, rng) for render in rng.sample(train, 16)]).to(device())
        images = images.contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(images).latent_dist
        loss = reconstruction_loss(vae.decode(posterior.sample()).sample, images) + 1e-5 * posterior.kl().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if step % LOG_EVERY == 0:
            print(f"vae step {step} loss {loss.item():.4f} held-out error {vae_error(vae, held_out):.4f}", flush=True)
    latents = [vae.encode(data.view(render)[None].to(device())).latent_dist.mode().detach() for render in train[:400]]
    vae.register_to_config(scaling_factor=round(1 / float(torch.cat(latents).std()), 4))
    vae.save_pretrained(work / "vae")
    print(f"vae done: {step} steps, scaling factor {vae.config.scaling_factor}", flush=True)


# --- CLIP ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def clip_retrieval(clip: torch.nn.Module, renders: list[data.Render], tokenize: object) -> tuple[float, float]:
    """Share of held-out images whose own caption ranks first among all, and among 16 at a time."""
    clip.eval()
    images = torch.stack([data.view(render) for render in renders]).to(device())
    texts = tokenize([render.captions()[0] for render in renders]).to(device())  # type: ignore[operator]  # open_clip's tokenizer has no stub
    similarity = clip.encode_image(images, normalize=True) @ clip.encode_text(texts, normalize=True).T  # type: ignore[operator]  # open_clip methods are untyped
    own = torch.arange(len(renders), device=device())
    groups = [similarity[i : i + 16, i : i + 16].argmax(1) == own[:16] for i in range(0, len(renders), 16)]
    clip.train()
    return float((similarity.argmax(1) == own).float().mean()), float(torch.cat(groups).float().mean())


def _disturbed(images: torch.Tensor) -> torch.Tensor:
    """Colour and sharpness as generated images have them, so that the CLIP is not thrown by them."""
    count = len(images)
    gain = 1 + 0.15 * torch.randn(count, 3, 1, 1, device=images.device) * (
        torch.rand(count, 1, 1, 1, device=images.device) < 0.5
    )
    images = ((images + 1) * gain - 1).clamp(-1, 1)
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    mix = torch.rand(count, 1, 1, 1, device=images.device) * 0.8
    images = images + mix * (soft - images)
    return images + 0.05 * torch.rand(count, 1, 1, 1, device=images.device) * torch.randn_like(images)


def train_clip(folder: Path, work: Path, minutes: float) -> None:
    train, held_out = data.load(folder)
    clip = architecture.build_clip().to(device())
    import open_clip

    tokenize = open_clip.SimpleTokenizer(context_length=architecture.CONTEXT_LENGTH)
    decay = [p for p in clip.parameters() if p.ndim >= 2]
    plain = [p for p in clip.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.2}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98))
    average = copy.deepcopy(clip).eval()
    rng, start, step = random.Random(2), time.monotonic(), 0
    while (share := (time.monotonic() - start) / (60 * minutes)) < 1:
        set_rate(optimizer, learning_rate(int(share * 1000), 1000, 1e-3, warmup=30))
        batch = rng.sample(train, 256)
        images = _disturbed(torch.stack([data.view(render, rng) for render in batch]).to(device()))
        texts = tokenize([rng.choice(render.captions()) for render in batch]).to(device())
        image_side, text_side = clip.encode_image(images, normalize=True), clip.encode_text(texts, normalize=True)
        logits = clip.logit_scale.exp().clamp(max=50) * image_side @ text_side.T
        target = torch.arange(len(batch), device=device())
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loss.backward()
        torch.nn.utils.clip_grad_norm_(clip.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        _follow(average, clip, min(0.995, step / (step + 10)))
        if step % (LOG_EVERY // 2) == 0:
            everywhere, sixteen = clip_retrieval(average, held_out, tokenize)
            print(
                f"clip step {step} loss {loss.item():.3f} held-out top1/96 {everywhere:.3f} /16 {sixteen:.3f}",
                flush=True,
            )
    average.eval()
    architecture.text_tower_to_hf(average).save_pretrained(work / "text_encoder")
    architecture.write_tokenizer(work / "tokenizer")
    save_file(architecture.image_tower_state(average), work / "clip.safetensors")
    print(f"clip done: {step} steps", flush=True)


@torch.no_grad()
def _follow(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Exponential moving average of the weights; buffers are copied."""
    for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(new)


# --- denoiser --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _cache(folder: Path, work: Path, views: int = 6) -> dict[str, torch.Tensor]:
    """Latents of several views of each render, and text states of each caption variant; index 3 is the empty
    caption."""
    path = work / "cache.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    from transformers import CLIPTextModel, CLIPTokenizer

    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    text_encoder = CLIPTextModel.from_pretrained(work / "text_encoder").eval()
    tokenizer = CLIPTokenizer.from_pretrained(str(work / "tokenizer"))
    rng = random.Random(3)

    def latents(render: data.Render, augment: bool) -> torch.Tensor:
        count = views if augment else 1
        images = torch.stack([data.view(render, rng if view else None) for view in range(count)])
        return vae.encode(images).latent_dist.mode() * vae.config.scaling_factor

    def texts(render: data.Render) -> torch.Tensor:
        ids = tokenizer([*render.captions(), ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
        return text_encoder(ids).last_hidden_state

    train, held_out = data.load(folder)
    cache = {
        "latents": torch.stack([latents(render, True) for render in train]),
        "texts": torch.stack([texts(render) for render in train]),
        "held_out_latents": torch.stack([latents(render, False) for render in held_out]),
        "held_out_texts": torch.stack([texts(render) for render in held_out]),
    }
    torch.save(cache, path)
    return cache


def _snr_weight(schedule: DDPMScheduler, gamma: float = 5.0) -> torch.Tensor:
    """Min-SNR weights of noise prediction, by timestep (Hang et al. 2023)."""
    snr = schedule.alphas_cumprod / (1 - schedule.alphas_cumprod)
    return snr.clamp(max=gamma) / snr


@torch.no_grad()
def unet_validation(
    unet: torch.nn.Module, latents: torch.Tensor, texts: torch.Tensor, schedule: DDPMScheduler
) -> float:
    """Noise-prediction error on held-out pairs at fixed noise and timesteps."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(latents.shape, generator=generator)
    steps = torch.linspace(20, 980, len(latents)).long()
    noisy = schedule.add_noise(latents, noise, steps)
    output = unet(noisy.to(device()), steps.to(device()), texts.to(device())).sample
    return float(F.mse_loss(output.cpu(), noise))


def train_unet(folder: Path, work: Path, steps: int, batch: int = 32) -> None:
    cache = _cache(folder, work)
    latents, texts = cache["latents"], cache["texts"]
    schedule = DDPMScheduler(**architecture.SCHEDULER)
    weight = _snr_weight(schedule)
    unet = architecture.build_unet().to(device()).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-3, weight_decay=0.01, betas=(0.9, 0.99))
    average, step = copy.deepcopy(unet).eval(), 0
    checkpoint = work / "unet.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        unet.load_state_dict(state["unet"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    generator = torch.Generator().manual_seed(step)
    total, start = 0.0, time.monotonic()
    while step < steps:
        set_rate(optimizer, learning_rate(step, steps, 1e-3))
        rows = torch.randint(len(latents), (batch,), generator=generator)
        views = torch.randint(latents.shape[1], (batch,), generator=generator)
        variants = torch.multinomial(torch.tensor([0.6, 0.2, 0.1, 0.1]), batch, True, generator=generator)
        clean = latents[rows, views]
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(1000, (batch,), generator=generator)
        noisy = schedule.add_noise(clean, noise, times).contiguous(memory_format=torch.channels_last)
        output = unet(noisy.to(device()), times.to(device()), texts[rows, variants].to(device())).sample
        error = (output - noise.to(device())).square().mean((1, 2, 3))
        loss = (error * weight[times].to(device())).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        total += loss.item()
        _follow(average, unet, min(0.9995, step / (step + 10)))
        if step % LOG_EVERY == 0:
            pace = (time.monotonic() - start) / LOG_EVERY
            print(f"unet step {step} loss {total / LOG_EVERY:.4f} {pace:.3f} s/step", flush=True)
            total, start = 0.0, time.monotonic()
        if step % 500 == 0 or step == steps:
            held_out = cache["held_out_latents"][:, 0], cache["held_out_texts"][:, 0]
            print(f"unet step {step} held-out loss {unet_validation(average, *held_out, schedule):.4f}", flush=True)
            state = {"unet": unet.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**state, "step": step}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            start = time.monotonic()


# --- shipping --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _without_spread(vae: AutoencoderKL) -> AutoencoderKL:
    """The autoencoder with a posterior of next to no spread: the denoiser was trained on its means."""
    channels = vae.config.latent_channels
    vae.quant_conv.weight[channels:] = 0
    vae.quant_conv.bias[channels:] = -14.0  # log variance
    return vae


def ship(work: Path, target: Path) -> None:
    """Writes the averaged weights as fp16 safetensors in diffusers' layout, and the CLIP's image tower beside them."""
    from transformers import CLIPTextModel, CLIPTokenizer

    unet = architecture.build_unet()
    unet.load_state_dict(torch.load(work / "unet.pt", weights_only=True)["average"])
    pipeline = StableDiffusionPipeline(
        vae=_without_spread(AutoencoderKL.from_pretrained(work / "vae")),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(str(work / "tokenizer")),
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**architecture.SCHEDULER, use_karras_sigmas=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(target, safe_serialization=True)
    (target / "clip").mkdir(exist_ok=True)
    tower = {name: value.half() for name, value in load_file(work / "clip.safetensors").items()}
    save_file(tower, target / "clip" / "image_tower.safetensors")
    size = sum(path.stat().st_size for path in target.rglob("*.safetensors")) / 1e6
    print(f"shipped {size:.1f} MB of weights to {target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["vae", "clip", "unet", "ship"])
    parser.add_argument("--data", type=Path, help="folder of renders with metadata.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--minutes", type=float, default=10, help="of the autoencoder or the CLIP")
    parser.add_argument("--steps", type=int, default=15000, help="of the denoiser")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.stage == "vae":
        train_vae(arguments.data, arguments.work, arguments.minutes)
    elif arguments.stage == "clip":
        train_clip(arguments.data, arguments.work, arguments.minutes)
    elif arguments.stage == "unet":
        train_unet(arguments.data, arguments.work, arguments.steps)
    else:
        ship(arguments.work, WEIGHTS)


if __name__ == "__main__":
    main()
