#!/usr/bin/env python3
"""Makes tests/data/decoders: tiny random Qwen3 and Mistral models and the hidden states that transformers gives.

Versions: python 3.11, torch 2.15.0 (CPU), transformers 5.24.0, safetensors.

Every file is one model: weights `w.*` under the names that save_pretrained() gives them, config.json as metadata
"config", and for each way of padding P (`none`: one text, `left`, `right`, `holes`: three texts) `in.P.input_ids`,
`in.P.mask` and `out.P.hidden` [states, B, T, C], all of them, with sdpa attention. `grad.*`: gradients of
sum(out.left.hidden * in.cotangent) where the file has them.
"""

import json
import os
import sys

import torch
import transformers
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
LENGTH = 7
SMALL = dict(vocab_size=24, hidden_size=12, intermediate_size=20, num_hidden_layers=3, attention_dropout=0.0)


def cases():
    qwen = lambda **o: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**{**SMALL, **o}))  # noqa: E731
    mistral = lambda **o: transformers.MistralForCausalLM(  # noqa: E731
        transformers.MistralConfig(**{"sliding_window": None, **SMALL, **o}))
    rope = lambda theta, **o: {"rope_theta": theta, "rope_type": "default", **o}  # noqa: E731
    yield "qwen3_grouped", qwen(num_attention_heads=4, num_key_value_heads=2, head_dim=6, tie_word_embeddings=True,
                                rope_parameters=rope(1e6)), True
    yield "qwen3_windows", qwen(num_attention_heads=4, num_key_value_heads=1, head_dim=8, rope_parameters=rope(500.0),
                                rms_norm_eps=1e-3, use_sliding_window=True, sliding_window=3, max_window_layers=1,
                                layer_types=["sliding_attention", "full_attention", "sliding_attention"]), False
    yield "qwen3_biases", qwen(num_attention_heads=2, num_key_value_heads=2, head_dim=4, attention_bias=True,
                               hidden_act="gelu_pytorch_tanh", rope_parameters=rope(1e4)), False
    yield "mistral_grouped", mistral(num_attention_heads=4, num_key_value_heads=1, head_dim=6, rms_norm_eps=1e-5,
                                     rope_parameters=rope(1e9)), True
    yield "mistral_linear", mistral(num_attention_heads=2, num_key_value_heads=2, head_dim=None, hidden_act="gelu",
                                    rope_parameters=rope(100.0, rope_type="linear", factor=2.5)), False
    yield "mistral_window", mistral(num_attention_heads=4, num_key_value_heads=2, head_dim=4, sliding_window=3,
                                    rope_parameters=rope(1e4)), False


def randomize(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            values = torch.randn(p.shape, generator=g)
            if p.dim() < 2:
                p.copy_(1 + 0.2 * values if name.endswith("weight") else 0.3 * values)
            else:
                p.copy_(values * (1 if "embed" in name else 1.5 / p.shape[1] ** 0.5))
    return model.eval()


def main():
    out = os.path.join(HERE, "decoders")
    os.makedirs(out, exist_ok=True)
    for seed, (name, model, gradients) in enumerate(cases()):
        randomize(model, seed)
        model.set_attn_implementation("sdpa")
        weights = {"w." + k: v.detach().clone() for k, v in model.state_dict().items() if k != "lm_head.weight"}
        tensors = dict(weights)
        g = torch.Generator().manual_seed(100 + seed)
        layers = model.config.num_hidden_layers
        for padding in ["none", "left", "right", "holes"]:
            batch = 1 if padding == "none" else 3
            ids = torch.randint(0, SMALL["vocab_size"], (batch, LENGTH), generator=g)
            mask = torch.ones(batch, LENGTH, dtype=torch.long)
            if padding == "left":
                mask[0, :3] = 0
                mask[1, :6] = 0
            elif padding == "right":
                mask[0, 5:] = 0
                mask[2, 1:] = 0
            elif padding == "holes":
                mask[0, 2] = 0
                mask[1, [0, 3, 4]] = 0
                mask[2] = 0
            record = padding == "left" and gradients
            with torch.set_grad_enabled(record):
                states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
            assert len(states) == layers + 1
            hidden = torch.stack(states)
            assert torch.isfinite(hidden).all()
            if record:
                cotangent = torch.randn(hidden.shape, generator=g)
                (hidden * cotangent).sum().backward()
                tensors["in.cotangent"] = cotangent
                for k, p in model.named_parameters():
                    if k != "lm_head.weight":
                        assert torch.isfinite(p.grad).all(), k
                        tensors["grad." + k] = p.grad.clone()
            tensors[f"in.{padding}.input_ids"] = ids.to(torch.int32)
            tensors[f"in.{padding}.mask"] = mask.to(torch.int32)
            tensors[f"out.{padding}.hidden"] = hidden.detach()
        path = os.path.join(out, name + ".safetensors")
        metadata = {"config": json.dumps(model.config.to_dict(), default=str), "transformers": transformers.__version__,
                    "torch": torch.__version__}
        save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata)
        print(name, os.path.getsize(path))


if __name__ == "__main__":
    sys.exit(main())
