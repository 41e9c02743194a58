#!/usr/bin/env python3
"""Makes the conformance vectors in this folder from the public reference packages.

Pinned versions (CPU builds):
    python 3.11, torch 1.13.1, numpy 1.x, transformers 4.44.2, diffusers 0.30.3,
    tokenizers 0.19.1, huggingface_hub 0.24.7, safetensors

Usage: make_vectors.py [--out FOLDER] [NAME ...]      (all files when no NAME is given)

Every .safetensors file holds one case: tensors named `in.*`, `w.*` (weights under the package's own
state-dict keys), `mid.*`, `out.*` and `grad.*`. A sub-case tag follows the prefix (`in.long.input_ids`).
Gradients are those of the sum over outputs k of sum(out.k * in.loss_cotangent.k). Inputs and weights are
exactly representable in float32, results are computed in float64 and rounded to float32. The metadata entry
`f32_ref_err` is the error of the same package in plain float32, as max|got - want| / max|want|.
"""

import argparse
import contextlib
import json
import math
import os
import struct

import numpy as np
import torch
import torch.nn.functional as F


def _exact_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    assert attn_mask is None and dropout_p == 0.0 and not is_causal
    scores = q @ k.transpose(-1, -2) * (scale or q.shape[-1] ** -0.5)
    return scores.softmax(-1) @ v


# torch 1.13 has no fused attention; diffusers' Flux blocks look it up by name.
if not hasattr(F, "scaled_dot_product_attention"):
    F.scaled_dot_product_attention = _exact_attention

import diffusers  # noqa: E402
import transformers  # noqa: E402

TOLERANCE = (
    "metric: max|got-want| / max(|want|) per tensor (all-zero want: |got| <= 1e-5). float32 implementation: "
    "outputs 2e-4, grads 1e-3; bf16/f16 weights or activations: outputs 3e-2, grads 6e-2; never tighter than "
    "5 x f32_ref_err, the same metric for the reference itself in plain float32."
)


# ---------------------------------------------------------------- file format


def save_safetensors(path, tensors, metadata):
    """Writes tensors sorted by name; integers as I32, everything else as F32."""
    header, chunks, offset = {"__metadata__": metadata}, [], 0
    for name in sorted(tensors):
        array = tensors[name].detach().cpu().numpy()
        integer = np.issubdtype(array.dtype, np.integer)
        data = np.ascontiguousarray(array, dtype="<i4" if integer else "<f4").tobytes()
        header[name] = {
            "dtype": "I32" if integer else "F32",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        chunks.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(chunks))
    print(f"{os.path.basename(path)}: {len(tensors)} tensors, {os.path.getsize(path)} bytes")


def relative_error(got, want):
    worst, peak = (got.double() - want.double()).abs().max().item(), want.abs().max().item()
    return worst / peak if peak > 0 else worst


def compare_precisions(exact, single):
    """Metadata entries describing how far the plain float32 run is from the float64 one."""
    shown, worst = {}, {"outputs": None, "grads": None}
    for name, want in exact.items():
        if not want.is_floating_point():
            continue
        error = relative_error(single[name], want)
        if name.startswith("out.") or error > 1e-4:
            shown[name] = float(f"{error:.3g}")
        kind = "outputs" if name.startswith("out.") else "grads" if name.startswith("grad.") else None
        if kind:
            worst[kind] = max(worst[kind] or 0.0, error)
    return {"f32_ref_err": json.dumps(shown), "f32_ref_err_worst": json.dumps(worst)}


def write_case(folder, case, package, reference_file, config, weights, inputs, compute, notes):
    """Runs compute(dtype) in float64 and float32 and writes inputs, weights and the float64 results."""
    with float64_islands():
        exact = clear_rounding(compute(torch.float64))
    single = compute(torch.float32)
    metadata = {
        "case": case,
        "reference_repo": package,
        "reference_file": reference_file,
        "config": json.dumps(config),
        "computed_in": "float64 (the reference's float32 islands kept in float64; integer-to-float conversions "
        "and sinusoid frequencies float32 as in the reference)",
        "stored_as": "F32 (ints I32)",
        "tolerance_advice": TOLERANCE,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "diffusers": diffusers.__version__,
        **notes,
        **compare_precisions(exact, single),
    }
    tensors = {**{"w." + k: v for k, v in weights.items()}, **inputs, **exact}
    save_safetensors(os.path.join(folder, case + ".safetensors"), tensors, metadata)


@contextlib.contextmanager
def float64_islands():
    """Lets float64 tensors pass through the reference's explicit conversions to float32."""
    to, to_float = torch.Tensor.to, torch.Tensor.float

    def keep_to(self, *args, **kwargs):
        if self.dtype == torch.float64 and torch.float32 in args:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        return to(self, *args, **kwargs)

    torch.set_default_dtype(torch.float64)
    torch.Tensor.to = keep_to
    torch.Tensor.float = lambda self: self if self.dtype == torch.float64 else to_float(self)
    try:
        yield
    finally:
        torch.Tensor.to, torch.Tensor.float = to, to_float
        torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- helpers


def normal(generator, *shape, std=1.0):
    """Float32 values held in float64, so that both precisions see the same numbers."""
    return (torch.randn(*shape, generator=generator) * std).double()


def randomize(module, seed, embedding_std=1.0, gain=1.0):
    """Replaces every parameter so that each path carries signal; norm scales lie around one."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, torch.nn.Embedding)}
    with torch.no_grad():
        for name, p in module.named_parameters():
            if id(p) in embeddings:
                p.copy_(normal(generator, *p.shape, std=embedding_std))
            elif p.dim() >= 2:
                p.copy_(normal(generator, *p.shape, std=gain / math.sqrt(p[0].numel())))
            elif name.endswith("weight"):
                p.copy_(1.0 + normal(generator, *p.shape, std=0.1))
            else:
                p.copy_(normal(generator, *p.shape, std=0.05))
            p.copy_(p.float().to(p.dtype))
    return module.eval()


def in_precision(module, dtype):
    module.to(dtype)
    module.zero_grad(set_to_none=True)
    return module


def capture(module, sink, name, pick=lambda out: out):
    """Stores a module's output under `name` at its next call; returns the hook handle."""
    return module.register_forward_hook(lambda _m, _i, out: sink.__setitem__(name, pick(out).detach().clone()))


def first(output):
    return output[0] if isinstance(output, (tuple, list)) else output


def weights_of(module, skip=()):
    return {k: v.detach().clone() for k, v in module.state_dict().items() if not k.endswith(tuple(skip) or "\0")}


def weighted_gradients(module, outputs, cotangents):
    """Gradients of sum_k sum(outputs[k] * cotangents[k]), as `grad.<parameter>`."""
    loss = sum((outputs[k] * cotangents[k].to(outputs[k].dtype)).sum() for k in outputs)
    loss.backward()
    return {"grad." + n: p.grad.detach().clone() for n, p in module.named_parameters() if p.grad is not None}


def clear_rounding(tensors):
    """Makes mathematically zero gradients (softmax ignores a key bias) exactly zero."""
    for name, tensor in tensors.items():
        if name.startswith("grad.") and tensor.abs().max() < 1e-12:
            tensor.zero_()
    return tensors


# ---------------------------------------------------------------- text encoders


def make_clip(folder, case, activation, seed, with_gradients):
    config = dict(
        vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=12, hidden_act=activation, layer_norm_eps=1e-5, bos_token_id=58,
        eos_token_id=59, pad_token_id=59, projection_dim=32,
    )
    model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config, attn_implementation="eager"))
    randomize(model.double(), seed, embedding_std=0.7, gain=1.3)
    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(0, 58, (2, 12), generator=generator)
    ids[:, 0] = 58
    ids[0, 5:] = 59  # end at position 5, padded with the end id
    ids[1, 10:] = 59
    cotangents = {"last_hidden_state": normal(generator, 2, 12, 32), "pooled": normal(generator, 2, 32)}
    weights = weights_of(model, skip=["position_ids"])

    def compute(dtype):
        result, encoder = {}, in_precision(model, dtype).text_model.encoder
        hooks = [capture(l, result, f"mid.hidden.{i + 1}", first) for i, l in enumerate(encoder.layers)]
        hooks.append(capture(model.text_model.embeddings, result, "mid.hidden.0"))
        out = model(input_ids=ids)
        for hook in hooks:
            hook.remove()
        outputs = {"last_hidden_state": out.last_hidden_state, "pooled": out.pooler_output}
        result.update({"out." + k: v.detach().clone() for k, v in outputs.items()})
        if with_gradients:
            result.update(weighted_gradients(model, outputs, cotangents))
        return result

    inputs = {"in.input_ids": ids.int()}
    if with_gradients:
        inputs.update({"in.loss_cotangent." + k: v for k, v in cotangents.items()})
    notes = {
        "gradients": "of sum over outputs k of sum(out.k * in.loss_cotangent.k)" if with_gradients else "none",
        "note": "causal mask, no padding mask; mid.hidden.0 is token + position embedding, mid.hidden.k the residual "
        "stream after k layers, before final_layer_norm; out.pooled is the final-normed row at the first end id",
    }
    write_case(folder, case, "huggingface/transformers", "models/clip/modeling_clip.py CLIPTextModel", config,
               weights, inputs, compute, notes)


def make_t5(folder):
    config = dict(
        vocab_size=60, d_model=32, d_kv=8, num_heads=4, d_ff=64, num_layers=2, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=1e-6,
        is_encoder_decoder=False, use_cache=False, dropout_rate=0.0,
    )
    model = transformers.T5EncoderModel(transformers.T5Config(**config)).double()
    randomize(model, seed=2101)
    first_attention = model.encoder.block[0].layer[0].SelfAttention
    with torch.no_grad():
        for block in model.encoder.block:  # attention has no 1/sqrt(d) factor
            block.layer[0].SelfAttention.q.weight.mul_(0.5)
    generator = torch.Generator().manual_seed(2102)
    ids = torch.randint(2, 60, (2, 20), generator=generator)
    ids[0, 12], ids[0, 13:], ids[1, 19] = 1, 0, 1  # end id, then padding that takes part
    long_ids = torch.randint(2, 60, (1, 150), generator=generator)
    cotangents = {"last_hidden_state": normal(generator, 2, 20, 32)}
    weights = weights_of(model, skip=["embed_tokens.weight"])

    def compute(dtype):
        result = {}
        in_precision(model, dtype)
        hooks = [capture(b, result, f"mid.hidden.{i + 1}", first) for i, b in enumerate(model.encoder.block)]
        hooks.append(capture(model.shared, result, "mid.hidden.0"))
        outputs = {"last_hidden_state": model(input_ids=ids).last_hidden_state}
        for hook in hooks:
            hook.remove()
        result.update({"out." + k: v.detach().clone() for k, v in outputs.items()})
        result.update(weighted_gradients(model, outputs, cotangents))
        with torch.no_grad():
            result["mid.position_bias"] = first_attention.compute_bias(20, 20)
            result["out.long.last_hidden_state"] = model(input_ids=long_ids).last_hidden_state
        return result

    distance = torch.arange(-149, 150)
    bucket = first_attention._relative_position_bucket(distance, bidirectional=True, num_buckets=32, max_distance=128)
    inputs = {
        "in.input_ids": ids.int(),
        "in.long.input_ids": long_ids.int(),
        "in.loss_cotangent.last_hidden_state": cotangents["last_hidden_state"],
        "in.long.relative_position": distance.int(),
        "mid.long.bucket": bucket.int(),
    }
    notes = {
        "gradients": "of sum(out.last_hidden_state * in.loss_cotangent.last_hidden_state); sub-case long is forward only",
        "note": "no attention mask: padding takes part; mid.hidden.0 is the embedding, mid.hidden.k the residual stream "
        "after k blocks, before final_layer_norm; mid.position_bias [1,heads,query,key]; mid.long.bucket[i] is the "
        "bucket of in.long.relative_position[i] = key position - query position",
    }
    write_case(folder, "t5_encoder", "huggingface/transformers", "models/t5/modeling_t5.py T5EncoderModel", config,
               weights, inputs, compute, notes)


# ---------------------------------------------------------------- diffusers names


def make_flux(folder):
    config = dict(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=24, pooled_projection_dim=20, guidance_embeds=True,
        axes_dims_rope=[4, 6, 6],
    )
    model = randomize(diffusers.FluxTransformer2DModel(**config).double(), seed=2201, gain=1.2)
    generator = torch.Generator().manual_seed(2202)
    rows, columns, text_tokens, batch = 3, 4, 5, 2
    ids = torch.zeros(rows, columns, 3, dtype=torch.float64)
    ids[..., 1] += torch.arange(rows)[:, None]
    ids[..., 2] += torch.arange(columns)[None, :]
    inputs = {
        "in.img": normal(generator, batch, rows * columns, 16),
        "in.txt": normal(generator, batch, text_tokens, 24),
        "in.y": normal(generator, batch, 20),
        "in.timesteps": torch.tensor([0.75, 0.125], dtype=torch.float64),
        "in.guidance": torch.tensor([3.5, 1.0], dtype=torch.float64),
        "in.img_ids": ids.reshape(1, -1, 3).repeat(batch, 1, 1),
        "in.txt_ids": torch.zeros(batch, text_tokens, 3, dtype=torch.float64),
    }
    weights = weights_of(model)

    def compute(dtype):
        result = {}
        in_precision(model, dtype)
        double = model.transformer_blocks[0]
        hooks = [
            capture(model.time_text_embed, result, "mid.vec"),
            capture(model.x_embedder, result, "mid.img_in"),
            capture(model.context_embedder, result, "mid.txt_in"),
            capture(double, result, "mid.double.0.txt", lambda out: out[0]),
            capture(double.ff, result, "mid.double.0.img_mlp"),
            *[capture(b, result, f"mid.single.{i}") for i, b in enumerate(model.single_transformer_blocks)],
            capture(model.norm_out, result, "mid.norm_out"),
            double.register_forward_hook(lambda _m, _i, out: result.__setitem__("mid.double.0.img", out[1].clone())),
        ]
        with torch.no_grad():
            # Positions stay float64: the package multiplies them with float64 frequencies.
            result["out.img"] = model(
                hidden_states=inputs["in.img"].to(dtype),
                encoder_hidden_states=inputs["in.txt"].to(dtype),
                pooled_projections=inputs["in.y"].to(dtype),
                timestep=inputs["in.timesteps"].to(dtype),
                guidance=inputs["in.guidance"].to(dtype),
                img_ids=inputs["in.img_ids"],
                txt_ids=inputs["in.txt_ids"],
            ).sample
        for hook in hooks:
            hook.remove()
        return result

    notes = {
        "gradients": "none",
        "note": "w.* has the diffusers names; inputs are named as in the original layout (img, txt, y, timesteps in "
        "[0,1], guidance); mid.vec is the conditioning vector, mid.single.s the joint sequence, text first",
    }
    write_case(folder, "flux_diffusers_names", "huggingface/diffusers",
               "models/transformers/transformer_flux.py FluxTransformer2DModel", config, weights, inputs, compute, notes)


def make_vae(folder):
    config = dict(
        in_channels=3, out_channels=3, block_out_channels=[8, 8, 16, 16], layers_per_block=1, latent_channels=4,
        norm_num_groups=4, act_fn="silu", use_quant_conv=False, use_post_quant_conv=False,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
        scaling_factor=0.3611, shift_factor=0.1159, mid_block_add_attention=True, force_upcast=False,
    )
    model = randomize(diffusers.AutoencoderKL(**config).double(), seed=2301)
    generator = torch.Generator().manual_seed(2302)
    inputs = {"in.image": normal(generator, 1, 3, 16, 24, std=0.5), "in.z": normal(generator, 1, 4, 2, 3)}
    weights = weights_of(model)

    def compute(dtype):
        result = {}
        in_precision(model, dtype)
        hooks = []
        for half in ("encoder", "decoder"):
            part = getattr(model, half)
            stages = part.down_blocks if half == "encoder" else part.up_blocks
            kind = "down_blocks" if half == "encoder" else "up_blocks"
            hooks += [capture(s, result, f"mid.{half}.{kind}.{i}", first) for i, s in enumerate(stages)]
            hooks += [capture(getattr(part, n), result, f"mid.{half}.{n}") for n in ("conv_in", "mid_block")]
            hooks.append(capture(part.mid_block.attentions[0], result, f"mid.{half}.mid_block.attentions.0"))
        with torch.no_grad():
            posterior = model.encode(inputs["in.image"].to(dtype)).latent_dist
            result["out.mean"] = posterior.mean
            result["out.decoded"] = model.decode(inputs["in.z"].to(dtype)).sample
        for hook in hooks:
            hook.remove()
        return result

    notes = {
        "gradients": "none",
        "note": "out.mean = mean half of the encoder output for in.image (no scale, no shift); out.decoded = decoder "
        "output for in.z (no scale, no shift); group norm has norm_num_groups groups, eps 1e-6; mid.* stages have "
        "the diffusers stage names, so decoder.up_blocks.k is level 3-k of the original layout",
    }
    write_case(folder, "vae_diffusers_names", "huggingface/diffusers",
               "models/autoencoders/autoencoder_kl.py AutoencoderKL", config, weights, inputs, compute, notes)


# ---------------------------------------------------------------- noise


def box_muller_stream(seed, count):
    """Normals from MT19937 as a plain formula; `count` >= 16. Cross-checks the framework's values."""
    engine = np.random.RandomState(seed)

    def uniforms(n):
        words = engine.randint(0, 2**32, size=n, dtype=np.uint32)
        return (words & 0xFFFFFF).astype(np.float64) * 2.0**-24

    def transform(block):
        radius, angle = np.sqrt(-2.0 * np.log1p(-block[:8])), 2.0 * np.pi * block[8:]
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])

    data = uniforms(count)
    for i in range(0, count - 15, 16):
        data[i : i + 16] = transform(data[i : i + 16])
    if count % 16:
        data[-16:] = transform(uniforms(16))
    return data


def philox4x32(counter, key):
    """Philox 4x32 with ten rounds on Python integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k1, p0 & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def philox_normals(seed, draw, indices):
    values = []
    for i in indices:
        o0, o1 = philox4x32((draw, 0, i, 0), (seed & 0xFFFFFFFF, seed >> 32))[:2]
        u = np.float64(o0) * 2.0**-32 + 2.0**-33
        angle = 2.0 * np.pi * (np.float64(o1) * 2.0**-32 + 2.0**-33)
        values.append(float(np.float32(np.sqrt(-2.0 * np.log(u)) * np.sin(angle))))
    return values


def make_noise(folder):
    # Known answer of the generator itself (all-zero counter and key).
    assert philox4x32((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    cases = []
    for seed in (0, 42):
        for count in (16, 17, 40, 100):
            torch.manual_seed(seed)
            values = torch.randn(count, dtype=torch.float32)
            worst = np.abs(values.double().numpy() - box_muller_stream(seed, count)).max()
            assert worst < 5e-6, (seed, count, worst)
            cases.append({"fn": "mt19937", "seed": seed, "n": count, "result": values.tolist()})
    for seed in (0, 42, 2**32 + 5):
        for draw in (0, 1):
            cases.append({"fn": "philox", "seed": seed, "draw": draw, "first_index": 0, "n": 8,
                          "result": philox_normals(seed, draw, range(8))})
    document = {
        "case": "torch_randn",
        "reference_repo": "pytorch",
        "reference_file": "torch.manual_seed, torch.randn (CPU, float32); philox: Philox 4x32-10 formula",
        "computed_in": "mt19937: float32 by the framework; philox: float64 rounded to float32",
        "tolerance_advice": "5e-6 absolute (the framework's vectorised log and cosine differ from libm by some ulp)",
        "torch": torch.__version__,
        "note": "philox: element i of draw d uses counter (d, 0, i, 0) and key (low, high 32 bits of seed); with outputs "
        "o0, o1: u = o0 2^-32 + 2^-33, v = 2 pi (o1 2^-32 + 2^-33), value sqrt(-2 ln u) sin v",
        "cases": cases,
    }
    path = os.path.join(folder, "torch_randn.json")
    with open(path, "w") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    print(f"torch_randn.json: {len(cases)} cases, {os.path.getsize(path)} bytes")


MAKERS = {
    "clip_text": lambda folder: make_clip(folder, "clip_text", "quick_gelu", 2001, True),
    "clip_text_gelu": lambda folder: make_clip(folder, "clip_text_gelu", "gelu", 2011, False),
    "t5_encoder": make_t5,
    "flux_diffusers_names": make_flux,
    "vae_diffusers_names": make_vae,
    "torch_randn": make_noise,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="files to make: " + ", ".join(MAKERS))
    parser.add_argument("--out", default=os.path.dirname(os.path.abspath(__file__)), help="output folder")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(MAKERS)
    if unknown:
        parser.error(f"unknown name: {', '.join(sorted(unknown))}; expected one of {', '.join(MAKERS)}")
    torch.set_num_threads(1)
    for name in arguments.names or MAKERS:
        MAKERS[name](arguments.out)


if __name__ == "__main__":
    main()
