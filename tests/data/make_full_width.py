#!/usr/bin/env python3
"""Makes full_width.safetensors and full_width_flux2.safetensors: what the public packages compute at the full width of
FLUX.1 and of FLUX.2, and a depth of one.

Versions: python 3.11, torch 2.x (CPU), diffusers 0.35.1, transformers 4.57.1, numpy; for FLUX.2 torch 2.15, diffusers
0.42.1.

Usage: make_full_width.py [--out FILE] [PART ...]     parts: transformer, t5, clip, autoencoder; klein, dev

The weights are too large to be kept, so they are a function of a seed, the tensor's name and the place in it
(`values` below; tests/harness/generated_weights.h is the same in C++). Every value of a matrix is a whole number of
at most eight bits times a power of two, so f32, f16 and bf16 hold the same numbers; of at most four in FLUX.2 [dev],
whose values fp8 holds too. The file has inputs (`in.*`),
outputs in float64 rounded to float32 (`out.*`); its metadata has the seed and, for each part, the tensors' shapes and
the sum of all values' bits, by which the two generators are compared.
"""

import argparse
import json
import math
import struct

import diffusers
import numpy as np
import torch
import transformers

SEED = 20261130
M64 = (1 << 64) - 1


def fnv1a(text):
    h = 0xCBF29CE484222325
    for c in text.encode():
        h = ((h ^ c) * 0x100000001B3) & M64
    return h


def mixed(key, first, count):
    """Splitmix64's numbers [first, first + count) from `key`."""
    with np.errstate(over="ignore"):
        x = np.uint64(key) + np.arange(first + 1, first + 1 + count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def exponent(shape, significant=8):
    """Of the power of two that gives a matrix's values a deviation near 1 / sqrt(inputs)."""
    inputs = math.prod(shape[1:])
    if significant == 4:  # not below fp8's least step
        return max(math.floor(-math.log2(9.2 * math.sqrt(inputs)) + 0.5), -9)
    return math.floor(-math.log2(147.2 * math.sqrt(inputs)) + 0.5)


def values(part, name, shape, significant=8):
    """float32; vectors are 1 + u or u for scales and biases."""
    count, key = math.prod(shape), (SEED + fnv1a(part + "/" + name)) & M64
    out = np.empty(count, np.float32)
    if len(shape) < 2:
        significant = 8
    scale = 2.0 ** (exponent(shape, significant) if len(shape) > 1 else -12)
    for first in range(0, count, 1 << 22):
        n = min(1 << 22, count - first)
        if significant == 4:  # sixteen of each number
            words = mixed(key, first // 16, (n + 15) // 16)[:, None] >> np.arange(0, 64, 4, dtype=np.uint64)
            top = (words & np.uint64(15)).astype(np.int32).reshape(-1)[:n]
        else:
            top = (mixed(key, first, n) >> np.uint64(56)).astype(np.int32)
        out[first : first + n] = (2 * top + 1 - (1 << significant)).astype(np.float32) * np.float32(scale)
    if len(shape) == 1 and not name.endswith("bias"):
        out += np.float32(1)
    return out.reshape(shape)


def fill(part, model, significant=8, matrices=torch.float64):
    """Gives a module its weights in float64, its matrices in a type of their own; -> their shapes, and the sum of their
    float32 bits modulo 2^64."""
    shapes, bits = {}, 0
    seen = set()  # tables that have two names are made under the first
    for name, parameter in model.state_dict(keep_vars=True).items():
        if not parameter.is_floating_point() or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        v = values(part, name, tuple(parameter.shape), significant)
        shapes[name] = list(v.shape)
        bits = (bits + int(v.view(np.uint32).sum(dtype=np.uint64))) & M64
        parameter.data = torch.from_numpy(v).to(matrices if v.ndim > 1 else torch.float64)
    # As text: a sum of bits doesn't fit a double.
    return {"shapes": shapes, "bits": str(bits), "significant": significant}


def tensor(name, shape, scale=1.0):
    """An input, likewise a function of its name."""
    key = (SEED + fnv1a("in/" + name)) & M64
    top = (mixed(key, 0, math.prod(shape)) >> np.uint64(56)).astype(np.float64)
    return torch.from_numpy(((2 * top - 255) / 147.2 * scale).astype(np.float32).reshape(shape))


def ids(name, count, vocabulary):
    key = (SEED + fnv1a("in/" + name)) & M64
    return torch.from_numpy((mixed(key, 0, count) % np.uint64(vocabulary)).astype(np.int64).reshape(1, count))


def transformer(out):
    with torch.device("meta"):
        model = diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=128,
            num_attention_heads=24, joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True)
    model.to_empty(device="cpu")
    made = fill("transformer", model)
    rows, columns, text = 4, 5, 6
    x, txt, y = tensor("x", (1, rows * columns, 64)), tensor("txt", (1, text, 4096), 0.2), tensor("y", (1, 768))
    grid = torch.zeros(rows, columns, 3)
    grid[..., 1] += torch.arange(rows)[:, None]
    grid[..., 2] += torch.arange(columns)[None, :]
    # diffusers multiplies both by 1000 itself and rounds the embedding to the input's type, float64 here.
    with torch.no_grad():
        v = model(hidden_states=x.double(), encoder_hidden_states=txt.double(), pooled_projections=y.double(),
                  timestep=torch.tensor([0.7], dtype=torch.float64), guidance=torch.tensor([3.5], dtype=torch.float64),
                  img_ids=grid.reshape(-1, 3), txt_ids=torch.zeros(text, 3), return_dict=False)[0]
    out |= {"in.x": x, "in.txt": txt, "in.y": y, "out.velocity": v}
    return made


def t5(out):
    config = transformers.T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=1, num_heads=64,
                                   feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    with torch.device("meta"):
        model = transformers.T5EncoderModel(config).eval()
    model.to_empty(device="cpu")
    model.encoder.embed_tokens = model.shared
    made = fill("t5", model)
    tokens = ids("t5", 11, 32128)
    with torch.no_grad():
        state = model(tokens).last_hidden_state
    # Every seventh channel, which meets all 64 heads.
    out |= {"in.t5_ids": tokens, "out.t5": state[..., ::7]}
    return made


def clip(out):
    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=49406, eos_token_id=49407)
    config._attn_implementation = "eager"
    model = transformers.CLIPTextModel(config).eval()
    made = fill("clip", model)
    tokens = ids("clip", 77, 49406)
    tokens[0, 0], tokens[0, 9:] = 49406, 49407
    with torch.no_grad():
        result = model(tokens)
    out |= {"in.clip_ids": tokens, "out.clip": result.pooler_output}
    return made


def autoencoder(out):
    model = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=32,
        scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False).eval()
    made = fill("autoencoder", model)
    picture, latent = tensor("picture", (1, 3, 24, 32), 0.5), tensor("latent", (1, 16, 3, 4))
    with torch.no_grad():
        mean = model.encode(picture.double()).latent_dist.mean
        decoded = model.decode(latent.double()).sample
    out |= {"in.picture": picture, "in.latent": latent, "out.mean": mean, "out.decoded": decoded}
    return made


class WideLinear(torch.nn.Linear):
    """A linear layer whose weight takes the type of its input while it is used."""

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight.to(x.dtype))


def flux2(out, part, heads, context, guidance, text, significant):
    with torch.device("meta"):
        model = diffusers.Flux2Transformer2DModel(
            num_layers=1, num_single_layers=1, num_attention_heads=heads, joint_attention_dim=context,
            guidance_embeds=guidance)
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = WideLinear
    model.to_empty(device="cpu")
    made = fill(part, model, significant, torch.bfloat16)
    # A picture of 2 x 3 tokens, and one of 1 x 2 that it refers to.
    x = tensor(part + "/x", (1, 8, 128))
    txt = (tensor(part + "/txt", (1, text, context)) * 16).round().div(64).bfloat16()
    ids, txt_ids = torch.zeros(8, 4), torch.zeros(text, 4)
    ids[:, 0] = torch.tensor([0.0] * 6 + [10.0] * 2)
    ids[:, 1] = torch.tensor([0.0, 0, 0, 1, 1, 1, 0, 0])
    ids[:, 2] = torch.tensor([0.0, 1, 2, 0, 1, 2, 0, 1])
    txt_ids[:, 3] = torch.arange(text)
    with torch.no_grad():
        v = model(hidden_states=x.double(), encoder_hidden_states=txt.double(),
                  timestep=torch.tensor([0.75], dtype=torch.float64), img_ids=ids, txt_ids=txt_ids, return_dict=False,
                  guidance=torch.tensor([4.0], dtype=torch.float64) if guidance else None)[0]
    out |= {f"in.{part}.x": x, f"in.{part}.txt": txt, f"out.{part}": v[:, :6]}
    return made


def klein(out):
    return flux2(out, "klein", 24, 7680, False, 3, 8)


def dev(out):
    return flux2(out, "dev", 48, 15360, True, 2, 4)


PARTS = {f.__name__: f for f in (transformer, t5, clip, autoencoder, klein, dev)}


def save(path, tensors, metadata):
    header, chunks, offset = {"__metadata__": metadata}, [], 0
    for name in sorted(tensors):
        if tensors[name].dtype == torch.bfloat16:
            kind, array = "BF16", tensors[name].contiguous().view(torch.int16).numpy()
            data = array.astype("<i2").tobytes()
        else:
            array = tensors[name].numpy()
            integer = np.issubdtype(array.dtype, np.integer)
            kind, data = "I32" if integer else "F32", np.ascontiguousarray(array, "<i4" if integer else "<f4").tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape),
                        "data_offsets": [offset, offset + len(data)]}
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))
    print(path, 8 + len(text) + offset, "bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="full_width.safetensors")
    parser.add_argument("parts", nargs="*", default=["transformer", "t5", "clip", "autoencoder"], metavar="PART")
    args = parser.parse_args()
    # transformers makes its masks in the default type, which must hold float64's least value.
    torch.set_default_dtype(torch.float64)
    out, parts = {}, {}
    for name in args.parts:
        parts[name] = PARTS[name](out)
        print(name, parts[name]["bits"], flush=True)
    save(args.out, out, {"seed": str(SEED), "parts": json.dumps(parts, separators=(",", ":")),
                         "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
                                     f"transformers {transformers.__version__}"})


if __name__ == "__main__":
    main()
