#!/usr/bin/env python3
"""Makes vae_*.safetensors beside this script: small FLUX.2 autoencoders with unusual options, what diffusers
computes with them, and the gradients.

Made with torch 2.15.0 and diffusers 0.42.1 on a CPU, in double precision.

Usage: make_vae_vectors.py

Every file holds weights `w.*` under diffusers' names, `in.image`, `in.latent` and the cotangents `in.cot.*`, the
results `out.latent` (of the image, as a transformer sees it) and `out.image` (of the latent), the gradients
`grad.*` of the sums of results times cotangents, and, as metadata, the package's config.
"""

import json
import pathlib
import struct

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2

FOLDER = pathlib.Path(__file__).resolve().parent
WATCHED = ("encoder.conv_in.weight", "encoder.mid_block.resnets.1.norm2.weight", "encoder.conv_out.bias",
           "quant_conv.weight", "post_quant_conv.weight", "post_quant_conv.bias", "decoder.conv_in.weight",
           "decoder.mid_block.attentions.0.to_k.weight", "decoder.up_blocks.1.resnets.0.conv1.weight",
           "decoder.conv_out.bias")


def write(name, config, tensors):
    header, data = {"__metadata__": {"case": name, "config": json.dumps(config)}}, b""
    for key in sorted(tensors):
        value = tensors[key].detach()
        integer = not value.is_floating_point()
        raw = np.ascontiguousarray(value.numpy(), "<i8" if integer else "<f4").tobytes()
        header[key] = {"dtype": "I64" if integer else "F32", "shape": list(value.shape),
                       "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (FOLDER / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def fold(x, p):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // p, p, w // p, p).permute(0, 1, 3, 5, 2, 4).reshape(b, c * p * p, h // p, w // p)


def unfold(x, p):
    b, c, h, w = x.shape
    return x.reshape(b, c // (p * p), p, p, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // (p * p), h * p, w * p)


def case(name, seed, batch=1, rows=2, columns=3, **options):
    model = AutoencoderKLFlux2(**({"block_out_channels": (4, 8), "layers_per_block": 1, "latent_channels": 3,
                                   "norm_num_groups": 2} | options),
                               down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)
    g = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in model.state_dict().items():
        if not value.is_floating_point():
            state[key] = torch.tensor(1234)
            continue
        spread = torch.randn(value.shape, generator=g)
        if value.dim() > 1:
            state[key] = spread * 0.8 / value[0].numel() ** 0.5
        elif key == "bn.running_var":
            state[key] = 0.2 + spread.square()
        else:
            state[key] = (1 if key.endswith("weight") else 0) + 0.2 * spread
    model.load_state_dict(state)
    model.double().eval()
    p = model.config.patch_size[0]
    z = model.config.latent_channels
    image = torch.randn(batch, 3, 2 * p * rows, 2 * p * columns, generator=g).double().requires_grad_()
    latent = torch.randn(batch, z * p * p, rows, columns, generator=g).double().requires_grad_()
    mean = model.bn.running_mean.view(1, -1, 1, 1)
    std = torch.sqrt(model.bn.running_var.view(1, -1, 1, 1) + model.config.batch_norm_eps)
    encoded = (fold(model.encode(image).latent_dist.mode(), p) - mean) / std
    decoded = model.decode(unfold(latent * std + mean, p)).sample
    cots = {"latent": torch.randn(encoded.shape, generator=g), "image": torch.randn(decoded.shape, generator=g)}
    ((encoded * cots["latent"]).sum() + (decoded * cots["image"]).sum()).backward()
    tensors = {f"w.{k}": v for k, v in state.items()}
    tensors |= {"in.image": image, "in.latent": latent, "out.latent": encoded, "out.image": decoded}
    tensors |= {f"in.cot.{k}": v for k, v in cots.items()}
    tensors |= {"grad.in.image": image.grad, "grad.in.latent": latent.grad}
    for key, value in model.named_parameters():
        if key in WATCHED:
            tensors[f"grad.{key}"] = value.grad
    write(name, dict(model.config), tensors)


def main():
    case("vae_plain", 1, batch=2)
    case("vae_eps", 2, batch_norm_eps=0.25, use_quant_conv=False, act_fn="gelu", rows=3, columns=1)
    case("vae_small_decoder", 3, decoder_block_out_channels=(6, 12), use_post_quant_conv=False, norm_num_groups=2)
    case("vae_patch_3", 4, patch_size=(3, 3), mid_block_add_attention=False, layers_per_block=2, rows=1)
    case("vae_patch_1", 5, patch_size=(1, 1), latent_channels=4, act_fn="relu", batch_norm_momentum=0.5,
         norm_num_groups=4, rows=4)


if __name__ == "__main__":
    main()
