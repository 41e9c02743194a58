#!/usr/bin/env python3
"""Makes FLUX.2's vectors, in float64 with weights in half precision, as make_goldens.py does.

goldens/flux2_*: golden files whose options have other values and forms than usual, by a checkout of
    github.com/black-forest-labs/flux2
flux2/*.safetensors: whole transformers, by diffusers' Flux2Transformer2DModel in its own names.

Versions: python 3.11, torch 2.15, diffusers 0.42.1, safetensors, einops.

Usage: make_flux2_goldens.py --flux2 CHECKOUT [--out FOLDER]
"""

import argparse
import os
import sys
import types

import torch
from make_goldens import F64, HERE, Float64Islands, Golden, backward, normal, randomise, write

PARAMS = {
    "in_channels": 8, "context_in_dim": 10, "hidden_size": 16, "num_heads": 2, "depth": 1, "depth_single_blocks": 1,
    "axes_dim": [2, 4, 0, 2], "theta": 300, "mlp_ratio": 1.5,
}  # fmt: skip


def text_ids(count):
    ids = torch.zeros(count, 4)
    ids[:, 3] = torch.arange(count)
    return ids


def grid_ids(rows, columns, index=0):
    ids = torch.zeros(rows, columns, 4)
    ids[..., 0] = index
    ids[..., 1] += torch.arange(rows)[:, None]
    ids[..., 2] += torch.arange(columns)[None]
    return ids.reshape(-1, 4)


def picture_ids(*grids):
    """Of a picture and its references, by (rows, columns)."""
    return torch.cat([grid_ids(*g, 10 * i) for i, g in enumerate(grids)])


def batched(ids, count):
    return ids[None].repeat(count, 1, 1).double()


# ---------------------------------------------------------------- golden files


def bfl_model(config, guidance, seed):
    from flux2.model import Flux2, Flux2Params

    model = randomise(Flux2(Flux2Params(**config)), seed)
    if not guidance:  # klein's forward pass leaves the embedder out
        del model.guidance_in
        object.__setattr__(model, "guidance_in", lambda embedding: 0)
    return model


def make_full(folder, name, config, told, batch, grids, guidance=True, ids_batch=None):
    model = bfl_model(config, guidance, 3)
    x_ids, ctx_ids = picture_ids(*grids), text_ids(3)
    inputs = {
        "x": normal(batch, len(x_ids), config["in_channels"]), "ctx": normal(batch, 3, config["context_in_dim"]),
        "timesteps": torch.linspace(0.2, 0.9, batch, dtype=torch.float32).double(),
        "guidance": torch.linspace(4, 1, batch, dtype=torch.float32).double(),
    }  # fmt: skip
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    y = model(x_ids=batched(x_ids, batch), ctx_ids=batched(ctx_ids, batch), **leaves)
    golden = Golden(folder, "flux2_full_" + name, told)
    backward(golden, {"img": y}, {"img": "loss_cotangent"})
    golden.weights(model, lambda n: "in_layer" not in n)  # which are large
    for k, v in inputs.items():
        if k != "guidance" or guidance:
            golden.put_in(k, v)
            golden.tensors["grad.in." + k] = leaves[k].grad
    for k, ids in {"x_ids": x_ids, "ctx_ids": ctx_ids}.items():
        golden.put_in(k, batched(ids, ids_batch or batch))
    golden.save("flux2_" + name)


def make_denoise(folder):
    from flux2.sampling import denoise

    config = {**PARAMS, "depth": 0}
    model = bfl_model(config, True, 5)
    golden = Golden(folder, "flux2_denoise", {"guidance": None, "model": {**config, "depth": False}})
    given = {
        "img": normal(1, 6, 8), "img_ids": batched(grid_ids(3, 2), 1), "txt": normal(1, 2, 10),
        "txt_ids": batched(text_ids(2), 1), "img_cond_seq": normal(1, 5, 8),
        "img_cond_seq_ids": batched(torch.cat([grid_ids(1, 3, 10), grid_ids(2, 1, 20)]), 1),
    }  # fmt: skip
    times = torch.tensor([1.0, 0.7, 0.2, 0.0], dtype=torch.float32).tolist()
    with torch.no_grad():
        y = denoise(model, timesteps=times, guidance=4.0, **given)
    for k, v in {**given, "timesteps": torch.tensor(times)}.items():
        golden.put_in(k, v)
    golden.weights(model)
    golden.tensors["out.img"] = y
    golden.save("flux2_references")


def make_ids(folder):
    from flux2 import sampling as S

    golden = Golden(folder, "flux2_ids", {
        "one": {"t": "7"}, "many": {"t": None}, "text": {"t": 3}, "own": {"t": [4, 0, 9]},
    })  # fmt: skip
    one, many = normal(3, 1, 5), normal(2, 3, 4, 2)
    tokens, ids = S.prc_img(one, torch.tensor([7]))
    golden.put_in("one.latent", one)
    golden.put(out__one__tokens=tokens, out__one__ids=ids)
    tokens, ids = S.batched_prc_img(many)
    golden.put_in("many.latent", many)
    golden.put(out__many__tokens=tokens, out__many__ids=ids)
    for tag, x, t in (("text", normal(4, 3), torch.tensor([3])), ("texts", normal(2, 3, 2), None)):
        x, ids = S.batched_prc_txt(x) if x.dim() == 3 else S.prc_txt(x, t)
        golden.put_in(tag + ".x", x)
        golden.tensors.update({f"out.{tag}.x": x, f"out.{tag}.ids": ids})
    for tag, sizes, times in (("own", [(2, 3), (1, 1), (3, 1)], [4, 0, 9]), ("refs", [(1, 2), (2, 2), (4, 1)], [10, 20, 30])):
        latents = [normal(2, *s) for s in sizes]
        tokens, ids = S.listed_prc_img(latents, [torch.tensor([t]) for t in times])
        for i, z in enumerate(latents):
            golden.put_in(f"{tag}.latent{i}", z)
        golden.tensors.update({f"out.{tag}.tokens": torch.cat(tokens), f"out.{tag}.ids": torch.cat(ids)})
    t = torch.tensor([30, 0, 10, 10, 500])
    golden.put_in("frames.t", t)
    golden.put(out__frames__t=S.compress_time(t))
    ids, tokens = torch.cat([grid_ids(2, 2, 40), grid_ids(1, 3, 5)]).long(), normal(7, 2)
    golden.put_in("places.ids", ids)
    golden.put_in("places.tokens", tokens)
    golden.put(out__places__volume=S.scatter_ids(tokens[None], ids[None])[0])
    golden.save("flux2_positions")


def make_rope(folder):
    from flux2.model import EmbedND, apply_rope

    golden = Golden(folder, "flux2_rope", {
        "plain": {"axes_dim": [8, 2, 4, 2]}, "turned": {"axes_dim": [2, 2, 2, 2], "theta": "50.5"},
    })  # fmt: skip
    for tag, axes, theta in (("plain", [8, 2, 4, 2], 2000), ("turned", [2, 2, 2, 2], 50.5)):
        ids = batched(torch.cat([text_ids(2), picture_ids((2, 2), (1, 2))]), 1)
        pe = EmbedND(sum(axes), theta, axes)(ids)
        golden.put_in(tag + ".ids", ids)
        golden.tensors[f"out.{tag}.pe"] = pe
        if tag == "turned":
            q, k = normal(1, 3, 8, 8).requires_grad_(), normal(1, 3, 8, 8).requires_grad_()
            turned = dict(zip("qk", apply_rope(q, k, pe)))
            backward(golden, {f"{tag}.{n}": y for n, y in turned.items()}, {f"{tag}.{n}": f"loss_cotangent.{tag}.{n}" for n in "qk"})
            for n, x in (("q", q), ("k", k)):
                golden.put_in(f"{tag}.{n}", x)
                golden.tensors[f"grad.in.{tag}.{n}"] = x.grad
    golden.save("flux2_turns")


def make_schedule(folder):
    from flux2.sampling import compute_empirical_mu, generalized_time_snr_shift, get_schedule

    rows = [
        {"num_steps": n, "image_seq_len": i, "mu": compute_empirical_mu(i, n), "schedule": get_schedule(n, i) if n < 40 else None}
        for i, n in ((1, 1), (4299, 7), (4300, 300), (4301, 3), (16384, 2), (256, 37), (1000000, 5))
    ]
    rows[0]["num_steps"], rows[1]["image_seq_len"] = True, "4299"
    rows.append({"fn": "compute_empirical_mu", "image_seq_len": 777, "num_steps": 28, "result": compute_empirical_mu(777, 28)})
    t = torch.tensor([1.0, 0.5, 0.1, 0.0], dtype=F64)
    rows.append({"fn": "generalized_time_snr_shift", "t": t.tolist(), "mu": 1.7, "sigma": 2, "result": generalized_time_snr_shift(t, 1.7, 2.0).tolist()})
    write(folder, "flux2_levels", {"case": "flux2_schedule", "cases": rows})


def make_goldens(folder):
    full = lambda *args, **named: make_full(folder, *args, **named)  # noqa: E731
    klein = {k: v for k, v in PARAMS.items() if k != "theta"}
    full("klein", {**klein, "theta": 2000}, {**klein, "mlp_ratio": "1.5", "use_guidance_embed": False}, 1, [(2, 3), (3, 1), (1, 2)], guidance=False)
    full("no_double", {**PARAMS, "depth": 0, "depth_single_blocks": 2}, {**PARAMS, "depth": 0, "depth_single_blocks": 2.0}, 2, [(1, 5)], ids_batch=1)
    full("no_single", {**PARAMS, "depth_single_blocks": 0, "num_heads": 1, "axes_dim": [4, 2, 6, 4]},
         {**PARAMS, "depth_single_blocks": False, "num_heads": "1", "axes_dim": [4, 2, 6, 4], "guidance_embed": None}, 2, [(2, 2), (1, 1)])
    make_denoise(folder)
    make_ids(folder)
    make_rope(folder)


# ---------------------------------------------------------------- diffusers

TRANSFORMERS = {
    "dev": {"num_attention_heads": 2, "attention_head_dim": 8, "axes_dims_rope": (2, 2, 2, 2), "num_single_layers": 2},
    "klein": {"num_attention_heads": 3, "attention_head_dim": 8, "axes_dims_rope": (2, 0, 4, 2), "guidance_embeds": False,
              "rope_theta": 77, "eps": 1e-3, "mlp_ratio": 2.3, "num_layers": 2},
    "three_axes": {"num_attention_heads": 1, "attention_head_dim": 12, "axes_dims_rope": (4, 2, 6), "num_layers": 0,
                   "timestep_guidance_channels": 30, "mlp_ratio": 1},
    "no_single": {"num_attention_heads": 1, "attention_head_dim": 16, "axes_dims_rope": (4, 4, 4, 4), "num_single_layers": 0,
                  "rope_theta": 1.5, "out_channels": 8},
}  # fmt: skip


def make_transformers(folder):
    from diffusers import Flux2Transformer2DModel

    for name, named in TRANSFORMERS.items():
        config = {"in_channels": 8, "num_layers": 1, "num_single_layers": 1, "joint_attention_dim": 12, **named}
        model = randomise(Flux2Transformer2DModel(**config), 13)
        batch, grids, text = 2, [(2, 4), (3, 2), (1, 2)], 5
        ids, drawn = picture_ids(*grids), 8
        inputs = {
            "hidden_states": normal(batch, len(ids), 8), "encoder_hidden_states": normal(batch, text, 12),
            "timestep": torch.tensor([0.9, 0.25], dtype=torch.float32).double(), "guidance": torch.tensor([4.0, 1.5]).double(),
        }  # fmt: skip
        leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
        y = model(img_ids=ids.double(), txt_ids=text_ids(text).double(), return_dict=False, **leaves)[0][:, :drawn]
        golden = Golden(folder, name, {k: v for k, v in model.config.items()})
        backward(golden, {"velocity": y}, {"velocity": "loss_cotangent"})
        golden.weights(model)
        for n in ("hidden_states", "encoder_hidden_states"):
            golden.tensors["grad.in." + n] = leaves[n].grad
        for k, v in inputs.items():
            golden.put_in(k, v)
        golden.save(name)


def make_kept_references(folder):
    """Steps of klein-kv: the first reads the references and keeps their keys and values, the second uses them."""
    from diffusers import Flux2Transformer2DModel
    from diffusers.models.transformers.transformer_flux2 import Flux2KVAttnProcessor, Flux2KVParallelSelfAttnProcessor

    config = {
        "in_channels": 8, "num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 12, "num_attention_heads": 2,
        "attention_head_dim": 8, "axes_dims_rope": (2, 2, 2, 2), "guidance_embeds": False, "timestep_guidance_channels": 32,
    }  # fmt: skip
    model = randomise(Flux2Transformer2DModel(**config), 17)
    for block in model.transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in model.single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    batch, drawn = 2, 6
    ids = picture_ids((2, 3), (1, 4), (2, 1)).double()
    x, references, txt = normal(batch, drawn, 8), normal(batch, len(ids) - drawn, 8), normal(batch, 3, 12)
    named = {"encoder_hidden_states": txt, "txt_ids": text_ids(3).double(), "return_dict": False}
    golden = Golden(folder, "kept_references", {k: v for k, v in model.config.items()})
    with torch.no_grad():
        first, cache = model(
            hidden_states=torch.cat([references, x], 1), img_ids=torch.cat([ids[drawn:], ids[:drawn]]),
            timestep=torch.tensor([0.875, 0.5]), kv_cache_mode="extract", num_ref_tokens=references.shape[1], **named)  # fmt: skip
        second = model(hidden_states=x, img_ids=ids[:drawn], timestep=torch.tensor([0.25, 0.125]), kv_cache=cache, kv_cache_mode="cached", **named)[0]
    golden.weights(model)
    for k, v in {"x": x, "references": references, "txt": txt}.items():
        golden.put_in(k, v)
    golden.put(out__first=first, out__second=second)
    golden.save("kept_references")


def make_schedules(folder):
    """Levels and times of schedulers as diffusers' pipelines of FLUX.2 ask for them."""
    import diffusers
    import numpy as np
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    grow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    solver = {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True}
    configs = [
        ({**grow, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}, 4, 4096), (grow, 50, 1024), (grow, 1, 64), (grow, 9, 4300),
        (grow, 9, 4301), (grow, 3, 16384), ({**grow, "use_dynamic_shifting": False, "shift": 2.5}, 5, 1024),
        ({**grow, "time_shift_type": "linear"}, 6, 2000), ({**grow, "shift_terminal": 0.1}, 6, 2000),
        ({**grow, "use_karras_sigmas": True}, 6, 2000), ({**grow, "num_train_timesteps": 500}, 4, 256), (solver, 8, 1024),
        (solver, 20, 300), (solver, 8, 1024),
    ]  # fmt: skip
    rows = []
    for config, steps, tokens in configs:
        named = {k: v for k, v in config.items() if k != "_class_name"}
        scheduler = getattr(diffusers, config["_class_name"])(**named)
        sigmas = None if named.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
        given = {"sigmas": sigmas} if sigmas is not None else {"num_inference_steps": steps}
        scheduler.set_timesteps(**given, mu=compute_empirical_mu(tokens, steps))
        rows.append({"config": config, "steps": steps, "tokens": tokens, "levels": scheduler.sigmas.tolist(),
                     "times": (scheduler.timesteps.double() / 1000).tolist()})  # fmt: skip
    write(folder, "schedules", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flux2", required=True, help="checkout of black-forest-labs/flux2")
    parser.add_argument("--out", default=HERE)
    args = parser.parse_args()
    sys.path.insert(0, os.path.join(args.flux2, "src"))
    sys.modules["torchvision"] = types.ModuleType("torchvision")  # imported beside what is called here
    import flux2.sampling  # noqa: F401

    del sys.modules["torchvision"]
    for folder in ("goldens", "flux2"):
        os.makedirs(os.path.join(args.out, folder), exist_ok=True)
    torch.manual_seed(12)
    make_schedule(os.path.join(args.out, "goldens"))
    make_schedules(os.path.join(args.out, "flux2"))
    with Float64Islands():
        make_goldens(os.path.join(args.out, "goldens"))
        make_transformers(os.path.join(args.out, "flux2"))
        make_kept_references(os.path.join(args.out, "flux2"))


if __name__ == "__main__":
    main()
