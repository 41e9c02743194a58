#!/usr/bin/env python3
"""Makes configs/*.safetensors beside this script: text encoders and autoencoders whose configs have other values than
FLUX.1's, with what the public packages compute.

Made with torch 2.15.0, transformers 4.57.1 and diffusers 0.35.1 on a CPU.

Usage: make_config_vectors.py

Every file holds weights `w.*` under the package's own names, inputs `in.*`, results `out.*` (computed
in float32) and, as metadata, the package's config.
"""

import json
import pathlib
import struct

import numpy as np
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

FOLDER = pathlib.Path(__file__).resolve().parent / "configs"


def save(name, config, weights, inputs, outputs):
    tensors = {f"w.{k}": v for k, v in weights.items() if not k.endswith("position_ids")}
    tensors |= {f"in.{k}": v for k, v in inputs.items()}
    tensors |= {f"out.{k}": v for k, v in outputs.items()}
    header, data = {"__metadata__": {"case": name, "config": json.dumps(config)}}, b""
    for key in sorted(tensors):
        value = tensors[key].detach().numpy()
        integer = np.issubdtype(value.dtype, np.integer)
        raw = np.ascontiguousarray(value, "<i4" if integer else "<f4").tobytes()
        header[key] = {"dtype": "I32" if integer else "F32", "shape": list(value.shape),
                       "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def randomise(module, seed):
    """Fills the module with values of ordinary size and gives them back."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in module.state_dict().items():
        if not value.is_floating_point():
            continue
        spread = torch.randn(value.shape, generator=generator, dtype=torch.float32)
        scale = key.endswith("weight") and value.dim() == 1
        state[key] = (1 + 0.2 * spread if scale else spread * (0.5 / max(1, value[0].numel()) ** 0.5 if value.dim() > 1 else 0.2))
        if "embed" in key or "shared" in key:
            state[key] = spread
    if "encoder.embed_tokens.weight" in state:
        state["encoder.embed_tokens.weight"] = state["shared.weight"]
    module.load_state_dict(state, strict=False)
    module.eval()
    return {k: v for k, v in state.items() if k != "encoder.embed_tokens.weight"}


def clip(name, seed, **options):
    config = CLIPTextConfig(vocab_size=24, hidden_size=16, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
                            max_position_embeddings=8, bos_token_id=22, eos_token_id=23, pad_token_id=23, projection_dim=16,
                            **options)
    model = CLIPTextModel(config)
    weights = randomise(model, seed)
    ids = torch.tensor([[22, 1, 5, 7, 23, 23, 23], [22, 3, 9, 20, 11, 2, 23]])
    result = model(input_ids=ids)
    save(name, config.to_dict(), weights, {"input_ids": ids},
         {"last_hidden_state": result.last_hidden_state, "pooled": result.pooler_output})


def t5(name, seed, **options):
    config = T5Config(vocab_size=24, d_model=16, d_kv=4, num_heads=2, d_ff=20, num_layers=2, relative_attention_num_buckets=8,
                      relative_attention_max_distance=16, **options)
    model = T5EncoderModel(config)
    weights = randomise(model, seed)
    ids = torch.tensor([[4, 1, 5, 7, 1, 0, 0], [3, 9, 20, 11, 2, 6, 1]])
    save(name, config.to_dict(), weights, {"input_ids": ids}, {"last_hidden_state": model(input_ids=ids).last_hidden_state})


def vae(name, seed, **options):
    model = AutoencoderKL(in_channels=3, out_channels=3, block_out_channels=(4, 8), layers_per_block=1, latent_channels=4,
                          norm_num_groups=2, down_block_types=("DownEncoderBlock2D",) * 2,
                          up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5, shift_factor=0.1, **options)
    weights = randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    image = torch.randn(1, 3, 8, 12, generator=generator)
    z = torch.randn(1, 4, 3, 4, generator=generator)
    posterior = model.encode(image).latent_dist
    config = {k: v for k, v in model.config.items()}
    save(name, config, weights, {"image": image, "z": z},
         {"mean": posterior.mean, "image": model.decode(z).sample})


def main():
    with torch.no_grad():
        for number, act in enumerate(["gelu_new", "gelu_pytorch_tanh", "relu", "silu", "mish", "leaky_relu", "relu6", "relu2"]):
            clip(f"clip_{act}", number, hidden_act=act)
        for number, act in enumerate(["relu", "gated-relu", "gated-silu", "gelu", "gated-gelu_new", "tanh"]):
            t5(f"t5_{act}", 20 + number, feed_forward_proj=act)
        vae("vae_quant_conv", 40, use_quant_conv=True, use_post_quant_conv=False, act_fn="mish")
        vae("vae_post_quant_conv", 41, use_quant_conv=False, use_post_quant_conv=True, act_fn="gelu")
        vae("vae_no_mid_attention", 42, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False,
            act_fn="relu")


if __name__ == "__main__":
    main()
