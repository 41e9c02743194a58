#!/usr/bin/env python3
"""Makes tests/data/goldens: golden files whose options have other values and forms than usual.

They are computed in float64 by the public reference implementations, from checkouts of
    github.com/black-forest-labs/flux
    github.com/ttulttul/ComfyUI-Approximate-Attention (Flux2TTR v2)
with torch, safetensors and einops. Weights are stored in half precision, which holds them exactly; masks as
numbers; options as null, texts, booleans or not at all.

Usage: make_goldens.py --flux CHECKOUT --ttr CHECKOUT [--out FOLDER]
"""

import argparse
import json
import math
import os
import sys
import types

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

F64 = torch.float64
HERE = os.path.dirname(os.path.abspath(__file__))


class Float64Islands:
    """Lets float64 tensors pass through explicit conversions to float32."""

    def __enter__(self):
        self.saved = torch.Tensor.float, torch.Tensor.to, torch.Tensor.new_zeros
        to_float, to, new_zeros = self.saved

        def keep_to(x, *args, **named):
            if x.dtype == F64:
                args = tuple(F64 if a is torch.float32 else a for a in args)
                named = {k: F64 if v is torch.float32 else v for k, v in named.items()}
            return to(x, *args, **named)

        def keep_zeros(x, *args, **named):
            if x.dtype == F64 and named.get("dtype") is torch.float32:
                named["dtype"] = F64
            return new_zeros(x, *args, **named)

        torch.Tensor.float = lambda x: x if x.dtype == F64 else to_float(x)
        torch.Tensor.to, torch.Tensor.new_zeros = keep_to, keep_zeros
        torch.set_default_dtype(F64)

    def __exit__(self, *_):
        torch.Tensor.float, torch.Tensor.to, torch.Tensor.new_zeros = self.saved
        torch.set_default_dtype(torch.float32)


def normal(*shape):
    return torch.randn(tuple(shape)).to(torch.float32).to(F64)


def randomise(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            values = torch.randn(p.shape, generator=generator, dtype=torch.float32)
            if name.endswith("scale") or ("norm" in name and name.endswith("weight")):
                values = 1 + 0.1 * values
            else:
                values = values / math.sqrt(p[0].numel()) if p.dim() > 1 else 0.05 * values
            p.copy_(values.half().float())
    return module.double()


class Golden:
    def __init__(self, folder, case, config):
        self.path, self.case, self.config, self.tensors = folder, case, config, {}

    def put(self, **named):
        for name, value in named.items():
            self.tensors[name.replace("__", ".")] = value

    def put_in(self, name, value):
        self.tensors["in." + name] = value

    def weights(self, module, gradients=None, prefix=""):
        for name, p in module.named_parameters():
            self.tensors["w." + prefix + name] = p.detach().half()
            if gradients and gradients(name):
                self.tensors["grad." + prefix + name] = torch.zeros_like(p) if p.grad is None else p.grad

    def save(self, name):
        out = {}
        for key, value in self.tensors.items():
            value = value.detach()
            out[key] = (value.type(torch.float32) if value.dtype == F64 else value).contiguous().clone()
        path = os.path.join(self.path, name + ".safetensors")
        save_file(out, path, metadata={"case": self.case, "config": json.dumps(self.config)})
        print(f"{name}: {len(out)} tensors, {os.path.getsize(path)} bytes")


def backward(golden, outputs, cotangents):
    """cotangents: those outputs (by name) whose sums make the loss."""
    loss = 0
    for name, y in outputs.items():
        golden.tensors["out." + name] = y
        if name in cotangents:
            r = normal(*y.shape)
            golden.put_in(cotangents[name], r)
            loss = loss + (y * r).sum()
    loss.backward()


# ---------------------------------------------------------------- FLUX.1

FLUX = {
    "in_channels": 8, "out_channels": 8, "vec_in_dim": 6, "context_in_dim": 12, "hidden_size": 16,
    "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [4, 2, 2],
    "theta": 10000, "qkv_bias": False, "guidance_embed": False,
}  # fmt: skip


def positions(batch, text, rows, columns):
    image = torch.zeros(rows, columns, 3, dtype=F64)
    image[..., 1] += torch.arange(rows)[:, None]
    image[..., 2] += torch.arange(columns)[None]
    return torch.zeros(batch, text, 3, dtype=F64), image.reshape(1, -1, 3).repeat(batch, 1, 1)


def make_flux(folder):
    from flux.model import Flux, FluxParams
    from flux.modules.layers import DoubleStreamBlock, EmbedND
    from flux.sampling import denoise

    def transformer(name, config, told, batch, reached):
        model = randomise(Flux(FluxParams(**config)), 3)
        txt_ids, img_ids = positions(batch, 3, 2, 3)
        inputs = {
            "img": normal(batch, 6, 8), "txt": normal(batch, 3, 12), "y": normal(batch, 6),
            "timesteps": torch.linspace(0.2, 0.9, batch, dtype=torch.float32).double(),
        }  # fmt: skip
        if config["guidance_embed"]:
            inputs["guidance"] = torch.full((batch,), 3.5, dtype=F64)
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        y = model(
            img=leaves["img"], img_ids=img_ids, txt=leaves["txt"], txt_ids=txt_ids,
            timesteps=leaves["timesteps"], y=leaves["y"], guidance=leaves.get("guidance"),
        )  # fmt: skip
        golden = Golden(folder, "flux1_full_" + name, told)
        backward(golden, {"img": y}, {"img": "loss_cotangent"})
        golden.weights(model, lambda n: True)
        for k, v in {**inputs, "txt_ids": txt_ids, "img_ids": img_ids}.items():
            golden.put_in(k, v)
        for k in reached:
            golden.tensors["grad.in." + k] = leaves[k].grad
        golden.save(name)

    without = {k: v for k, v in FLUX.items() if k not in ("guidance_embed", "theta")}
    transformer("flux1_no_bias", FLUX, {**without, "guidance_embed": None, "theta": None}, 2, ["img", "txt", "y"])
    guided = {**FLUX, "guidance_embed": True, "qkv_bias": True}
    transformer("flux1_guided", guided, {**guided, "mlp_ratio": "2", "depth": 1.0}, 1, ["img"])

    block = randomise(DoubleStreamBlock(16, 2, 2.0, qkv_bias=False), 7)
    txt_ids, img_ids = positions(1, 3, 2, 2)
    ids = torch.cat((txt_ids, img_ids), 1)
    img, txt, vec = normal(1, 4, 16), normal(1, 3, 16), normal(1, 16)
    out_img, out_txt = block(img, txt, vec, EmbedND(8, 10000, [4, 2, 2])(ids))
    golden = Golden(folder, "flux1_double_block", {
        "hidden": 16, "heads": 2, "mlp_ratio": 2, "axes_dim": [4, 2, 2], "qkv_bias": 0, "txt_tokens": "3",
    })  # fmt: skip
    # The loss doesn't see the text's output, so its last linears have no gradient.
    backward(golden, {"img": out_img, "txt": out_txt}, {"img": "loss_cotangent.img"})
    golden.weights(block, lambda n: True)
    for k, v in {"img": img, "txt": txt, "vec": vec, "ids": ids}.items():
        golden.put_in(k, v)
    golden.save("flux1_half_reached")

    def trajectory(name, config, guidance, channels, tokens):
        model = randomise(Flux(FluxParams(**config)), 5)
        txt_ids, img_ids = positions(1, 2, 2, 2)
        golden = Golden(folder, "flux1_denoise", {"guidance": guidance, "model": config})
        given = {}
        if channels:
            given["img_cond"] = normal(1, 4, 8)
        if tokens:
            given["img_cond_seq"] = normal(1, 3, 8)
            given["img_cond_seq_ids"] = positions(1, 2, 1, 3)[1] + torch.tensor([1.0, 0, 0])
        img, txt, vec, times = normal(1, 4, 8), normal(1, 2, 12), normal(1, 6), [0.9, 0.4, 0.0]
        named = {} if guidance is None else {"guidance": guidance}
        with torch.no_grad():
            y = denoise(model, img, img_ids, txt, txt_ids, vec, times, **named, **given)
        given.update(img=img, img_ids=img_ids, txt=txt, txt_ids=txt_ids, vec=vec)
        given["timesteps"] = torch.tensor(times, dtype=F64)
        for k, v in given.items():
            golden.put_in(k, v)
        golden.weights(model)
        golden.tensors["out.img"] = y
        golden.save(name)

    trajectory("flux1_more_tokens", {**FLUX, "guidance_embed": True}, None, False, True)
    trajectory("flux1_more_channels", {**FLUX, "in_channels": 16}, None, True, False)


def make_vae(folder):
    from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams

    config = {
        "resolution": 8, "in_channels": 3, "ch": 32, "out_ch": 3, "ch_mult": [1], "num_res_blocks": 1,
        "z_channels": 4, "scale_factor": 0.3611, "shift_factor": 0.1159,
    }  # fmt: skip
    model = AutoEncoder(AutoEncoderParams(**config))
    model.reg.sample = False
    model = randomise(model, 9)
    image, z = normal(1, 3, 4, 6).requires_grad_(), normal(1, 4, 3, 4).requires_grad_()
    golden = Golden(folder, "vae_flux1", config)
    outputs = {"encoded": model.encode(image), "decoded": model.decode(z)}
    backward(golden, outputs, {"encoded": "loss_cotangent.encoded"})
    golden.weights(model, lambda n: "mid.attn_1.q" in n or n.endswith("conv_in.weight"))
    golden.put(in__image=image, in__z=z, grad__in__image=image.grad, grad__in__z=torch.zeros_like(z))
    golden.save("vae_encoder_loss")


# ---------------------------------------------------------------- attention


def make_attention(folder, R):
    cases = {
        "wide": ((2, 1, 4, 6, 16, 20), None, {"mask": None}),
        "odd": ((1, 2, 2, 3, 6, 5), None, {}),
        "rows": ((2, 1, 3, 5, 8, 8), (2, 1, 5), {"mask": "3d"}),
        "empty": ((2, 1, 3, 4, 8, 12), (2, 4), {"mask": "empty"}),
    }
    golden = Golden(folder, "ttr_teacher_attention", {k: c[2] for k, c in cases.items()})
    for tag, ((b, h, nq, nk, d, dv), shape, _) in cases.items():
        q, k, v = (normal(*s).requires_grad_() for s in ((b, h, nq, d), (b, h, nk, d), (b, h, nk, dv)))
        mask = None
        if shape:
            mask = torch.zeros(shape) if tag == "empty" else (torch.arange(math.prod(shape)).reshape(shape) % 3 - 1.0)
            golden.put_in(tag + ".mask", mask)
        y = R._softmax_attention(q, k, v, mask)
        r = normal(*y.shape)
        (y * r).sum().backward()
        golden.put_in("loss_cotangent." + tag, r)
        golden.tensors[f"out.{tag}.y"] = y
        for name, x in zip("qkv", (q, k, v)):
            golden.put_in(f"{tag}.{name}", x)
            golden.tensors[f"grad.in.{tag}.{name}"] = x.grad
    golden.save("teacher_sizes_and_masks")

    keep = (torch.arange(24).reshape(2, 1, 3, 4) % 3) != 0
    added = torch.where(keep.expand(2, 2, 3, 4), 0.25, float("-inf"))
    cases = {
        "sdpa0": ((1, 2, 3, 5, 8, 12), None, None, {"scale": None}),
        "sdpa1": ((2, 1, 4, 4, 16, 16), None, None, {"is_causal": True}),
        "sdpa_mask": ((2, 2, 3, 4, 16, 8), keep, keep.to(torch.uint8), {"mask": "1 = keep", "scale": "0.3"}),
        "sdpa_mask2": ((2, 2, 3, 4, 16, 16), added.double(), added, {"mask": "added"}),
        "sdpa_mask3": ((2, 2, 3, 4, 8, 8), keep[:1, :, 1:2], keep[:1, :, 1:2], {"mask": None}),
    }
    golden = Golden(folder, "ops_attention", {k: c[3] for k, c in cases.items()})
    for tag, ((b, h, nq, nk, d, dv), mask, stored, config) in cases.items():
        q, k, v = (normal(*s).requires_grad_() for s in ((b, h, nq, d), (b, h, nk, d), (b, h, nk, dv)))
        scale = float(config["scale"]) if config.get("scale") else None
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=bool(config.get("is_causal")), scale=scale)
        r = normal(*y.shape)
        (y * r).sum().backward()
        golden.put_in("loss_cotangent." + tag, r)
        golden.tensors[f"out.{tag}.y"] = y
        if stored is not None:
            golden.put_in(tag + ".mask", stored)
        for name, x in zip("qkv", (q, k, v)):
            golden.put_in(f"{tag}.{name}", x)
            golden.tensors[f"grad.in.{tag}.{name}"] = x.grad
    golden.save("sdpa_masks")

    cases = {
        "wide": ((1, 2, 3, 9, 16, 20), 2, False, {"landmark_fraction": 0.5, "landmark_min": 1}),
        "text": ((2, 1, 3, 6, 8, 8), None, True, {"landmark_fraction": "0.5", "landmark_min": 1, "landmark_max": None, "text_tokens_guess": 2}),
        "true": ((1, 1, 2, 5, 8, 8), True, False, {"landmark_fraction": 0.5, "landmark_min": 1}),
        "clamped": ((1, 1, 2, 7, 8, 8), -3, False, {"landmark_fraction": 7.5, "landmark_min": -2, "landmark_max": -1}),
    }  # fmt: skip
    golden = Golden(folder, "ttr_landmark_branch", {k: {"cond": c[1], "kw": c[3]} for k, c in cases.items()})
    for tag, ((b, h, nq, n, d, dv), cond, masked, kw) in cases.items():
        named = {k: float(v) if isinstance(v, str) else v for k, v in kw.items() if v is not None}
        layer = R.Flux2HKRAttnLayer(d, 256, **named).double()
        q, k, v = (normal(*s).requires_grad_() for s in ((b, h, nq, d), (b, h, n, d), (b, h, n, dv)))
        mask = (torch.arange(b * n).reshape(b, n) % 3 != 0) if masked else None
        y = layer._landmark_attention(q, k, v, mask, None, cond)
        r = normal(*y.shape)
        (y * r).sum().backward()
        golden.put_in("loss_cotangent." + tag, r)
        golden.tensors[f"out.{tag}.y"] = y
        if masked:
            golden.put_in(tag + ".key_mask", mask.to(torch.float32))
        for name, x in zip("qkv", (q, k, v)):
            golden.put_in(f"{tag}.{name}", x)
            golden.tensors[f"grad.in.{tag}.{name}"] = x.grad
    golden.save("landmark_options")


# ---------------------------------------------------------------- controller


class Recorded:
    """Stands in for torch.rand_like."""

    def __init__(self, draws):
        self.draws = list(draws)

    def __call__(self, like, **_):
        return self.draws.pop(0).to(like.dtype)


def make_policy(folder, C, name, ready, sigmas, embed):
    layers = len(ready)
    net = randomise(C.TTRController(layers, embed, 16), 2)
    draws = torch.rand(len(sigmas), layers).to(F64)
    size = {"cfg_scale": 2.0, "width": 600, "height": 400}
    shape = {"num_layers": layers, "embed_dim": embed, "hidden_dim": 16}
    golden = Golden(folder, "ttr_policy", {**shape, "temperature": None, **size, "sigmas": sigmas})
    ready = torch.tensor(ready, dtype=F64)
    golden.put_in("uniform", draws)
    golden.put_in("sigmas", torch.tensor(sigmas, dtype=F64))
    golden.put_in("ready_mask", ready.half())
    rand_like = torch.rand_like
    for tag, mask in (("all", None), ("ready", ready)):
        for p in net.parameters():
            p.grad = None
        wrapper = C.TrainingControllerWrapper(net)
        wrapper.ready_mask = mask
        torch.rand_like = Recorded(draws)
        logits = [wrapper(sigma, *size.values()) for sigma in sigmas]
        torch.rand_like = rand_like
        records = wrapper.step_records
        out = {k: torch.stack([r[k] for r in records]) for k in ("mask", "probs", "log_probs")}
        out["synthetic_logits"] = torch.stack(logits)
        out["total_log_prob"] = wrapper.total_log_prob()
        out["sigma_weighted_default"] = wrapper.sigma_weighted_log_prob()
        out["sigma_weighted_max"] = wrapper.sigma_weighted_log_prob(max(sigmas))
        out["recompute_no_eligible"] = wrapper.sigma_weighted_log_prob_recompute(**size)
        able = wrapper.sigma_weighted_log_prob_recompute(**size, eligible_mask=ready > 0.5, sigma_max=max(sigmas))
        out["recompute_eligible"] = able
        able.backward()
        out["ttr_fraction"] = torch.tensor([share for _, share in wrapper.per_step_ttr_ratio()], dtype=F64)
        for k, v in out.items():
            golden.tensors[f"out.{tag}.{k}"] = v
        for k, p in net.named_parameters():
            golden.tensors[f"grad.{tag}.{k}"] = p.grad
    golden.weights(net)
    golden.save(name)


# ---------------------------------------------------------------- tables


def plain(x):
    if isinstance(x, float) and not math.isfinite(x):
        return "nan" if math.isnan(x) else "inf" if x > 0 else "-inf"
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    return {k: plain(v) for k, v in x.items()} if isinstance(x, dict) else x


def call(fn, function, *args, **named):
    row = {"fn": fn, "args": list(args), "kwargs": named}
    try:
        row["result"] = function(*args, **named)
    except Exception as error:  # whatever the reference raises is the expected answer
        row["error"] = {"type": type(error).__name__, "message": str(error)}
    return plain(row)


def write(folder, name, value):
    with open(os.path.join(folder, name + ".json"), "w", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def make_sweep(folder, S):
    seeds = [
        ((2**64, 3), {}), ((2**64 + 12345, 4), {}), ((2**200 + 7, 2), {}), ((-(2**70), 2), {}), ((True, True), {}),
        ((5, 2), {"min_value": True, "max_value": 9}), (("12", 3), {}), ((3.9, 2.7), {}), ((2**64 - 1, 2), {"min_value": 2**63}),
        ((7, None), {}), ((float("nan"), 2), {}), ((2**96, 1), {"max_value": 2**33}),
    ]  # fmt: skip
    rows = [call("generate_seed_batch", S.generate_seed_batch, *a, **k) for a, k in seeds]
    for text in ["nan inf -inf", "[NaN, 1]", "[Infinity,-Infinity]", "1e400", [True, "inf"], True, "0x10", [None], "[null]"]:
        rows.append(call("to_float_list", S.to_float_list, text, "v"))
    write(folder, "sweep_seeds", {"case": "ttr_sweep_utils", "cases": rows, "load_prompt_list_from_json": None})


def make_runtime(folder, R):
    runtime = R.Flux2TTRRuntime(
        feature_dim=256, learning_rate=1e-4, training=False, steps=0, text_tokens_guess=13, cfg_scale=2.5
    )
    options = [
        None, {}, {"sigma": None, "sigmas": [[0.3]]}, {"sigma": [], "current_sigma": [True]}, {"cfg_scale": None, "scale": True},
        {"cfg_scale": "3", "guidance_scale": [4, 5]}, {"conditioning_token_count": True}, {"conditioning_token_count": False},
        {"cond_token_count": 3.0, "prefix_token_count": 2}, {"text_token_count": True}, {"txt_token_count": -1, "prefix_tokens": 0},
        {"flux2_ttr": {"text_tokens_guess": True}}, {"width": True, "height": 2}, {"step": None, "current_step": True},
        {"step": 1.5, "timestep": 7}, {"flux2_ttr": None}, {"flux2_ttr": [1]},
    ]  # fmt: skip
    rows = []
    for o in options:
        for keys, text in ((40, 4), (0, 0)):
            step = runtime._extract_step_id(o)
            rows.append({
                "options": o, "n_key": keys, "text": text, "sigma": runtime._extract_sigma(o),
                "cfg_scale": runtime._extract_cfg_scale(o), "step_id": list(step) if step else None,
                "resolution": list(runtime._extract_resolution(o, keys, text)),
                "text_tokens": runtime._infer_text_token_count(o, keys),
                "conditioning_tokens": runtime._infer_conditioning_token_count(o, keys),
            })  # fmt: skip
    runtime.layer_start, runtime.layer_end = 1, 6
    selection = [
        {"options": o, "layer_key": runtime._layer_key_from_options(o), "selected": runtime._is_single_block_selected(o)}
        for o in [{"block_type": None}, {"block_type": 5, "block_index": 2}, {"block_index": True}, {"block_index": 2.0}, {"block_index": -1}]
    ]
    alphas = [0.9999999999, 1 - 1e-12, 1e-300, 0.99999994, float("nan"), float("inf"), True, 10]
    logits = [{"alpha_init": a, "logit": R.Flux2HKRAttnLayer(16, 256, alpha_init=a).alpha.item()} for a in alphas if a == a]
    quantiles = [
        {"values": v, "quartile_range": list(runtime._quartile_range(v)), "summary": runtime._quantile_summary(v)}
        for v in ([1.0, math.inf, 2.0], [math.nan], [True, 3])
    ]
    tables = {
        "transformer_options": {"runtime": {"cfg_scale": "2.5", "text_tokens_guess": 13.0}, "rows": rows},
        "layer_selection": {"runtime": {"layer_start": 1, "layer_end": "6"}, "rows": selection},
        "alpha_init_logit": logits,
        "quantiles": quantiles,
    }
    # NaN and infinities once as texts, once as Python writes them.
    write(folder, "runtime_texts", plain({"case": "ttr_runtime_tables", "tables": tables}))
    write(folder, "runtime_words", {"case": "ttr_runtime_tables", "tables": tables})


def make_landmarks(folder, R):
    rows = []
    for i in range(60):
        keys = [0, 1, 2, 5, 9, 33][i % 6]
        kw = {
            "landmark_fraction": [0.0, 0.08, 0.5, 1.0, 2.0, -0.5, 0.25][i % 7], "landmark_min": [0, 1, 3, 64, -2][i % 5],
            "landmark_max": [0, 2, 512, -4][i % 4], "text_tokens_guess": [0, 3, 77, -1][(i // 4) % 4],
        }  # fmt: skip
        text, conditioning = [None, 0, 3, True, -2][(i // 2) % 5], [None, 0, 4, True, False, -1, None][(i // 3) % 7]
        mask = [[j % (i % 3 + 2) == 1 for j in range(keys)]] if i % 4 == 1 and keys else None
        layer = R.Flux2HKRAttnLayer(16, 256, **kw)
        resolved = layer._resolve_conditioning_token_count(keys, text, conditioning)
        tensor = torch.tensor(mask) if mask else None
        index = layer._select_landmarks(keys, torch.device("cpu"), tensor, text, conditioning).tolist()
        rows.append({
            "num_keys": keys, "text_token_count": text, "conditioning_token_count": conditioning, **kw, "key_mask": mask,
            "resolved_conditioning_count": resolved, "effective_landmark_count": layer._effective_landmark_count(keys - resolved),
            "count": len(index), "indices": index,
        })  # fmt: skip
    write(folder, "landmark_counts", {"case": "ttr_landmarks", "cases": rows, "training_query_indices": None})


def make_schedule(folder):
    from flux.sampling import get_lin_function, get_schedule, time_shift

    rows = [
        {"fn": "get_schedule", "num_steps": 4, "image_seq_len": 300, "base_shift": None, "max_shift": None, "shift": None, "result": get_schedule(4, 300)},
        {"fn": "get_schedule", "num_steps": 3, "image_seq_len": 256, "base_shift": -0.5, "max_shift": "0.2", "shift": 1, "mu": -0.5, "result": get_schedule(3, 256, -0.5, 0.2)},
        {"fn": "get_lin_function", "x": 777, "x1": 100, "y1": 1.0, "x2": 900, "y2": 3.0, "result": get_lin_function(100, 1.0, 900, 3.0)(777)},
    ]  # fmt: skip
    shifted = time_shift(0.7, 2.0, torch.tensor(t := [1.0, 0.5, 0.1], dtype=F64)).tolist()
    rows.append({"fn": "time_shift", "mu": 0.7, "sigma": 2.0, "t": t, "result": shifted})
    write(folder, "schedule_options", {"case": "flux1_schedule", "cases": rows})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flux", required=True, help="checkout of black-forest-labs/flux")
    parser.add_argument("--ttr", required=True, help="checkout of ttulttul/ComfyUI-Approximate-Attention")
    parser.add_argument("--out", default=os.path.join(HERE, "goldens"))
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    sys.path[:0] = [os.path.join(args.flux, "src"), args.ttr]
    # What the sampler's module imports beside the functions that are called here.
    for name, members in {
        "flux.modules.image_embedders": ["CannyImageEncoder", "DepthImageEncoder", "ReduxImageEncoder"],
        "flux.modules.conditioner": ["HFEmbedder"],
        "flux.util": ["PREFERED_KONTEXT_RESOLUTIONS"],
    }.items():
        sys.modules[name] = types.ModuleType(name)
        for member in members:
            setattr(sys.modules[name], member, [] if member.isupper() else object)
    import flux2_ttr as R
    import flux2_ttr_controller as C
    import sweep_utils as S

    torch.manual_seed(11)
    with Float64Islands():
        make_flux(args.out)
        make_vae(args.out)
        make_attention(args.out, R)
        make_policy(args.out, C, "policy_large_sigma", [1, 0, 1, 1, 0], [2.5, 1.0, 0.2], 9)
        make_policy(args.out, C, "policy_nothing_ready", [0, 0, 0], [0.6, 0.1], 8)
    make_sweep(args.out, S)
    make_runtime(args.out, R)
    make_landmarks(args.out, R)
    make_schedule(args.out)


if __name__ == "__main__":
    main()
