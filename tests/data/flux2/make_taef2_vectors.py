#!/usr/bin/env python3
"""Makes taef2.safetensors beside this script: a narrow tiny autoencoder of FLUX.2 with random weights, and what it
gives.

Written for this file from the published description of TAEF2 (no package at hand has it) with torch 2.15.0: the
layers of TAEF1, where the units at the lowest resolution first add pool(x) = 1x1, group norm of 4 groups, ReLU, 1x1,
and latents are squares of 2x2 cells. Computed in double precision on a CPU.

Usage: make_taef2_vectors.py

The file holds weights `w.*` (names `encoder.layers.K`, `decoder.layers.K`), a folded latent `in.latent`, a
picture `in.image` in [-1, 1], the results `out.image` in [-1, 1] and `out.latent`, and the gradients `grad.in.*`
of the sums of results times `in.cot.*`.
"""

import json
import pathlib
import struct

import numpy as np
import torch
from torch.nn import functional as F

WIDTH, LATENT, POOL = 8, 3, 32
g = torch.Generator().manual_seed(7)
weights = {}


def conv(name, cin, cout, kernel=3, bias=True):
    weights[name + ".weight"] = torch.randn(cout, cin, kernel, kernel, generator=g) * (0.8 / (cin * kernel * kernel) ** 0.5)
    if bias:
        weights[name + ".bias"] = 0.2 * torch.randn(cout, generator=g)


def unit(name, pool=False):
    for i in (0, 2, 4):
        conv(f"{name}.conv.{i}", WIDTH, WIDTH)
    if pool:
        conv(f"{name}.pool.0", WIDTH, POOL, 1, False)
        weights[f"{name}.pool.1.weight"] = 1 + 0.3 * torch.randn(POOL, generator=g)
        weights[f"{name}.pool.1.bias"] = 0.3 * torch.randn(POOL, generator=g)
        conv(f"{name}.pool.3", POOL, WIDTH, 1, False)


# Kinds of layers in order, as the numbers of the names count them; "" has no weights.
DECODER = ["in", "", "pool", "unit", "up", "conv", "unit", "out"]
ENCODER = ["in", "unit", "down", "pool", "unit", "out"]


def make(half, kinds):
    for k, kind in enumerate(kinds):
        name = f"{half}.layers.{k}"
        if kind == "in":
            conv(name, LATENT if half == "decoder" else 3, WIDTH)
        elif kind == "out":
            conv(name, WIDTH, 3 if half == "decoder" else LATENT)
        elif kind in ("conv", "down"):
            conv(name, WIDTH, WIDTH, bias=False)
        elif kind in ("unit", "pool"):
            unit(name, kind == "pool")


def apply_conv(x, name, stride=1):
    w = weights[name + ".weight"].double()
    b = weights.get(name + ".bias")
    return F.conv2d(x, w, None if b is None else b.double(), stride, w.shape[-1] // 2)


def run(x, half, kinds):
    for k, kind in enumerate(kinds):
        name = f"{half}.layers.{k}"
        if kind == "":
            x = F.relu(x)
        elif kind == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif kind in ("in", "out", "conv", "down"):
            x = apply_conv(x, name, 2 if kind == "down" else 1)
        else:
            if kind == "pool":
                y = F.group_norm(apply_conv(x, name + ".pool.0"), 4, weights[name + ".pool.1.weight"].double(),
                                 weights[name + ".pool.1.bias"].double(), 1e-5)
                x = x + apply_conv(F.relu(y), name + ".pool.3")
            y = apply_conv(x, name + ".conv.0")
            y = apply_conv(F.relu(y), name + ".conv.2")
            y = apply_conv(F.relu(y), name + ".conv.4")
            x = F.relu(x + y)
    return x


def main():
    make("decoder", DECODER)
    make("encoder", ENCODER)
    latent = (2 * torch.randn(2, 4 * LATENT, 3, 2, generator=g)).requires_grad_()
    image = (2 * torch.rand(2, 3, 8, 12, generator=g) - 1).requires_grad_()
    b, c, h, w = latent.shape
    z = latent.double().reshape(b, LATENT, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, LATENT, 2 * h, 2 * w)
    decoded = 2 * run(3 * torch.tanh(z / 3), "decoder", DECODER) - 1
    encoded = run(image.double() / 2 + 0.5, "encoder", ENCODER)
    b, c, h, w = encoded.shape
    encoded = encoded.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, 4 * c, h // 2, w // 2)
    tensors = {f"w.{k}": v for k, v in weights.items()}
    cots = {"image": torch.randn(decoded.shape, generator=g), "latent": torch.randn(encoded.shape, generator=g)}
    ((decoded * cots["image"]).sum() + (encoded * cots["latent"]).sum()).backward()
    tensors |= {"in.latent": latent, "in.image": image, "out.image": decoded, "out.latent": encoded}
    tensors |= {f"in.cot.{k}": v for k, v in cots.items()}
    tensors |= {"grad.in.latent": latent.grad, "grad.in.image": image.grad}
    header, data = {"__metadata__": {"case": "taef2"}}, b""
    for key in sorted(tensors):
        raw = np.ascontiguousarray(tensors[key].detach().numpy(), "<f4").tobytes()
        header[key] = {"dtype": "F32", "shape": list(tensors[key].shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    pathlib.Path(__file__).resolve().with_name("taef2.safetensors").write_bytes(
        struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    main()
