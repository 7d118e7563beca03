"""A small AutoencoderKL fitted on the set itself: one that was trained on many pictures needs a model hub."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL

STEPS, BATCH, RATE = 400, 8, 1e-3


def make(folder: Path, images: Sequence[torch.Tensor], seed: int) -> Path:
    """Fit it on uint8 images (3, s, s) by L1 and a little KL, scale its latents to unit variance, save it.

    One that is there stays.
    """
    if (folder / "config.json").is_file():
        return folder
    torch.manual_seed(seed)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        norm_num_groups=8,
        latent_channels=4,
        mid_block_add_attention=False,
    )
    pixels = torch.stack(list(images)).float() / 127.5 - 1
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    loss = torch.zeros(())
    for _ in range(STEPS):
        batch = pixels[torch.randint(len(pixels), (BATCH,))]
        posterior = model.encode(batch).latent_dist
        loss = (model.decode(posterior.sample()).sample - batch).abs().mean() + 1e-6 * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        spread = torch.cat([model.encode(part).latent_dist.mean for part in pixels.split(BATCH)]).std()
    model.register_to_config(scaling_factor=float(1 / spread))
    model.save_pretrained(folder, safe_serialization=True)
    print(f"autoencoder: L1 {float(loss.detach()):.3f} of a range of 2")
    return folder
