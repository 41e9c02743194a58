#!/usr/bin/env python3
"""Makes old.safetensors and new.safetensors beside this script: weights in scaled fp8, in both dialects of ComfyUI; and
values.safetensors: what they stand for, by torch (fp8 to float32, times the scale), under the original's names.

Usage: make_scaled_fp8.py [FOLDER]      (torch 2.x with float8, safetensors)
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

PREFIX = "model.diffusion_model."


def quantised(shape, dtype, spread, seed):
    """Random values in fp8, and the scale that brings the largest to the type's largest."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread
    scale = (x.abs().max() / torch.finfo(dtype).max).to(torch.float32)
    q = (x / scale).to(dtype)
    return q, scale, q.to(torch.float32) * scale


def text(value):
    return torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    folder = folder if folder.is_dir() else folder.parent
    e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2
    old, new, want = {}, {}, {}

    old[PREFIX + "scaled_fp8"] = torch.zeros(0, dtype=e4m3)
    for layer, dtype, shape, form, seed in (("double_blocks.0.img_mlp.0", e4m3, (12, 36), (), 1),
                                            ("double_blocks.0.img_mlp.2", e5m2, (9, 16), (1,), 2)):
        q, scale, value = quantised(shape, dtype, 0.03, seed)
        old[PREFIX + layer + ".weight"], old[PREFIX + layer + ".scale_weight"] = q, scale.reshape(form)
        old[PREFIX + layer + ".scale_input"] = torch.tensor(0.5)
        want["old." + layer + ".weight"] = value
    old[PREFIX + "img_in.weight"] = torch.arange(8, dtype=torch.bfloat16).reshape(2, 4)
    want["old.img_in.weight"] = old[PREFIX + "img_in.weight"].to(torch.float32)

    parts = []
    for i, part in enumerate("qkv"):
        layer = f"transformer_blocks.0.attn.to_{part}"
        q, scale, value = quantised((4, 20), e4m3, 0.01 * 4 ** i, 10 + i)
        new[layer + ".weight"], new[layer + ".weight_scale"] = q, scale
        new[layer + ".input_scale"] = torch.tensor([1.0])
        new[layer + ".comfy_quant"] = text({"format": "float8_e4m3fn", "full_precision_matrix_mult": True})
        parts.append(value)
    want["new.double_blocks.0.img_attn.qkv.weight"] = torch.cat(parts)
    q, scale, value = quantised((6, 8), e5m2, 1.0, 20)
    new["norm_out.linear.weight"], new["norm_out.linear.weight_scale"] = q, scale.reshape(1)
    want["new.final_layer.adaLN_modulation.1.weight"] = torch.cat([value[3:], value[:3]])
    layers = {PREFIX + "norm_out.linear": {"format": "float8_e5m2"}}
    metadata = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}

    save_file(old, folder / "old.safetensors")
    save_file(new, folder / "new.safetensors", metadata)
    save_file({name: value.contiguous() for name, value in want.items()}, folder / "values.safetensors")


main()
