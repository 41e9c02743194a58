#!/usr/bin/env python3
"""Makes the LoRA files of this folder and cases.safetensors, what the reference packages draw with them.

Versions: python 3.11, torch 2.x (CPU), diffusers 0.35.1, transformers 4.57.1, peft 0.17.1, safetensors 0.8.

The base models are those of ../flux_diffusers_names.safetensors, ../clip_text.safetensors and
../t5_encoder.safetensors. `out.CASE` in cases.safetensors is the prediction of the transformer (or the last
hidden state of the text encoder) with the files and weights that the metadata lists for the case. The judge is
diffusers' or peft's own loader ("judge": "diffusers", "peft") where it reads the dialect at these sizes, else
the base model with merged weights, whose deltas are computed here in float64 by the dialect's formula.
"""

import json
import os

import diffusers
import numpy as np
import peft
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
HIDDEN, MLP = 32, 128
rng = np.random.default_rng(20)
outputs, cases = {}, {}


def base(name):
    path = os.path.join(HERE, "..", name + ".safetensors")
    with safe_open(path, "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {k: file.get_tensor(k) for k in file.keys()}
    weights = {k[2:]: v for k, v in tensors.items() if k.startswith("w.")}
    inputs = {k[3:]: v for k, v in tensors.items() if k.startswith("in.")}
    return config, weights, inputs


FLUX, FLUX_WEIGHTS, FLUX_IN = base("flux_diffusers_names")
CLIP, CLIP_WEIGHTS, CLIP_IN = base("clip_text")
T5, T5_WEIGHTS, T5_IN = base("t5_encoder")


def transformer(weights=None):
    model = FluxTransformer2DModel(**FLUX).eval()
    model.load_state_dict(weights or FLUX_WEIGHTS)
    return model


def clip(weights=None):
    model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP)).eval()
    model.load_state_dict(weights or CLIP_WEIGHTS, strict=False)
    return model


def t5(weights):
    model = transformers.T5EncoderModel(transformers.T5Config(**T5)).eval()
    missing = model.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys
    return model


@torch.no_grad()
def flux_out(model):
    i = FLUX_IN
    return model(
        hidden_states=i["img"],
        encoder_hidden_states=i["txt"],
        pooled_projections=i["y"],
        timestep=i["timesteps"],
        guidance=i["guidance"],
        img_ids=i["img_ids"][0],
        txt_ids=i["txt_ids"][0],
        return_dict=False,
    )[0]


@torch.no_grad()
def text_out(model, inputs):
    return model(input_ids=inputs["input_ids"]).last_hidden_state


def pipeline(with_clip=False):
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=clip() if with_clip else None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer(),
    )


def rand(*shape, std=0.3):
    return torch.from_numpy(rng.normal(0, std, shape)).float()


def write(name, tensors, metadata=None, dtype=None):
    if dtype is not None:
        tensors = {k: v.to(dtype) for k, v in tensors.items()}
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    save_file(tensors, os.path.join(HERE, name), metadata=metadata)
    return {k: v.double().numpy() if v.dtype != torch.float8_e4m3fn else v.float().double().numpy() for k, v in tensors.items()}


def case(name, judge, files, out, part="transformer"):
    """files: [(name, weight)]"""
    outputs["out." + name] = out.float()
    cases[name] = {"judge": judge, "part": part, "files": files}


def by_diffusers(name, files, with_clip=False):
    pipe = pipeline(with_clip)
    for i, (file, _) in enumerate(files):
        pipe.load_lora_weights(HERE, weight_name=file, adapter_name=f"a{i}")
    # One at strength 1 is left as it was loaded: peft forgets about rslora when it sets strengths.
    if len(files) > 1 or files[0][1] != 1:
        pipe.set_adapters([f"a{i}" for i in range(len(files))], [w for _, w in files])
    case(name, "diffusers", files, flux_out(pipe.transformer))
    return pipe


# ---------------------------------------------------------------- merged in float64

SPLITS = {"qkv": [HIDDEN] * 3, "linear1": [HIDDEN] * 3 + [MLP]}


def diffusers_places(module):
    """[(diffusers module, first row, rows)] of a module of the transformer in BFL names."""
    parts = module.split(".")
    if parts[0] == "double_blocks":
        t = f"transformer_blocks.{parts[1]}."
        image = parts[2].startswith("img")
        rest = ".".join(parts[2:])[4:]
        if rest == "attn.qkv":
            names = ["to_q", "to_k", "to_v"] if image else ["add_q_proj", "add_k_proj", "add_v_proj"]
            return [(t + "attn." + n, i * HIDDEN, HIDDEN) for i, n in enumerate(names)]
        ff = "ff" if image else "ff_context"
        simple = {
            "attn.proj": "attn.to_out.0" if image else "attn.to_add_out",
            "mlp.0": ff + ".net.0.proj",
            "mlp.2": ff + ".net.2",
            "mod.lin": "norm1.linear" if image else "norm1_context.linear",
        }
        return [(t + simple[rest], 0, None)]
    if parts[0] == "single_blocks":
        t = f"single_transformer_blocks.{parts[1]}."
        if parts[2] == "linear1":
            names = ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]
            return [(t + n, i * HIDDEN, s) for i, (n, s) in enumerate(zip(names, SPLITS["linear1"]))]
        return [(t + {"linear2": "proj_out", "modulation.lin": "norm.linear"}[".".join(parts[2:])], 0, None)]
    simple = {
        "img_in": "x_embedder",
        "txt_in": "context_embedder",
        "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
        "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
        "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear",
    }
    return [(simple[module], 0, None)]


class Merged:
    """The base weights with float64 deltas added by BFL names."""

    def __init__(self):
        self.w = {k: v.double().numpy().copy() for k, v in FLUX_WEIGHTS.items()}

    def get(self, module, kind="weight"):
        rows = [self.w[f"{name}.{kind}"] for name, _, _ in diffusers_places(module)]
        value = np.concatenate(rows)
        return np.roll(value, value.shape[0] // 2, 0) if module == "final_layer.adaLN_modulation.1" else value

    def set(self, module, value, kind="weight"):
        if module == "final_layer.adaLN_modulation.1":
            value = np.roll(value, value.shape[0] // 2, 0)
        for name, row, n in diffusers_places(module):
            self.w[f"{name}.{kind}"] = value[row : row + n] if n else value

    def add(self, module, delta, kind="weight"):
        self.set(module, self.get(module, kind) + delta, kind)

    def out(self):
        return flux_out(transformer({k: torch.from_numpy(v).float() for k, v in self.w.items()}))


def shapes(module, merged=Merged()):
    return merged.get(module).shape


# ---------------------------------------------------------------- the cases

DIFFUSERS_MODULES = [
    "transformer_blocks.0.attn.to_q",
    "transformer_blocks.0.attn.to_v",
    "transformer_blocks.0.attn.to_out.0",
    "transformer_blocks.0.attn.add_k_proj",
    "transformer_blocks.0.attn.to_add_out",
    "transformer_blocks.0.ff.net.0.proj",
    "transformer_blocks.0.ff_context.net.2",
    "transformer_blocks.0.norm1.linear",
    "single_transformer_blocks.0.attn.to_k",
    "single_transformer_blocks.0.proj_mlp",
    "single_transformer_blocks.1.proj_out",
    "single_transformer_blocks.1.norm.linear",
    "norm_out.linear",
    "proj_out",
    "x_embedder",
]


def by_peft(config, seed):
    """An adapter with random numbers, as peft makes it, in the base model."""
    torch.manual_seed(seed)
    model = transformer()
    model.add_adapter(config, adapter_name="default")
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" not in name:
            continue
        with torch.no_grad():
            if "magnitude" in name:
                p.mul_(1 + 0.3 * torch.randn(p.shape, generator=generator))
            else:
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    model.eval()
    return model


def plain_state(model):
    return {k: v.detach().clone() for k, v in peft.get_peft_model_state_dict(model, adapter_name="default").items()}


def save_pipeline_lora(name, model, metadata):
    FluxPipeline.save_lora_weights(
        HERE, transformer_lora_layers=plain_state(model), weight_name=name, transformer_lora_adapter_metadata=metadata
    )


def diffusers_cases():
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=DIFFUSERS_MODULES)
    model = by_peft(config, 1)
    save_pipeline_lora("diffusers.safetensors", model, config.to_dict())
    by_diffusers("diffusers", [("diffusers.safetensors", 0.7)])

    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        use_rslora=True,
        rank_pattern={"attn.to_q": 2, "proj_mlp": 1},
        alpha_pattern={"attn.to_q": 3, "transformer_blocks.0.ff.net.0.proj": 9},
        target_modules=DIFFUSERS_MODULES[:10],
    )
    model = by_peft(config, 2)
    save_pipeline_lora("rslora.safetensors", model, config.to_dict())
    by_diffusers("rslora", [("rslora.safetensors", 1.0)])

    tensors = {}
    for i, m in enumerate(DIFFUSERS_MODULES[:8]):
        out, n = FLUX_WEIGHTS[m + ".weight"].shape
        tensors[f"transformer.{m}.lora_A.weight"] = rand(2, n)
        tensors[f"transformer.{m}.lora_B.weight"] = rand(out, 2)
        tensors[f"transformer.{m}.alpha"] = torch.tensor(1.5 + (i % 3))
    write("alphas.safetensors", tensors)
    by_diffusers("alphas", [("alphas.safetensors", -0.5)])

    # DoRA: peft itself is the judge, through the model it was made in.
    config = peft.LoraConfig(
        r=3, lora_alpha=4, use_dora=True, target_modules=[m for m in DIFFUSERS_MODULES if m not in ("x_embedder", "proj_out")]
    )
    model = by_peft(config, 3)
    state = {f"transformer.{k}": v for k, v in plain_state(model).items()}
    write(
        "dora.safetensors",
        state,
        {"lora_adapter_metadata": json.dumps({"transformer.r": 3, "transformer.lora_alpha": 4, "transformer.use_dora": True})},
    )
    case("dora", "peft", [("dora.safetensors", 1.0)], flux_out(model))
    model.set_adapters(["default"], [0.6])
    case("dora_weighted", "peft", [("dora.safetensors", 0.6)], flux_out(model))


KOHYA_MODULES = ["double_blocks.0.img_attn.qkv", "double_blocks.0.txt_attn.qkv", "double_blocks.0.img_attn.proj",
                 "double_blocks.0.img_mlp.0", "double_blocks.0.txt_mlp.2", "double_blocks.0.txt_mod.lin",
                 "single_blocks.0.linear2", "single_blocks.1.modulation.lin"]  # fmt: skip
REST = ["single_blocks.0.linear1", "single_blocks.1.linear1", "img_in", "txt_in", "time_in.in_layer",
        "vector_in.out_layer", "final_layer.linear", "final_layer.adaLN_modulation.1"]  # fmt: skip


def lora_pairs(modules, name_of, down, up, rank=3, alpha=None):
    tensors = {}
    for i, m in enumerate(modules):
        out, n = shapes(m)
        tensors[name_of(m) + down] = rand(rank, n)
        tensors[name_of(m) + up] = rand(out, rank)
        if alpha:
            tensors[name_of(m) + ".alpha"] = torch.tensor(alpha(i))
    return tensors


def merge_pairs(values, modules, name_of, down, up, weight):
    merged = Merged()
    for m in modules:
        a, b = values[name_of(m) + down], values[name_of(m) + up]
        alpha = values.get(name_of(m) + ".alpha", np.array(a.shape[0])).item()
        merged.add(m, weight * alpha / a.shape[0] * b @ a)
    return merged


def kohya(m):
    return "lora_unet_" + m.replace(".", "_")


def bfl_cases():
    down, up = ".lora_down.weight", ".lora_up.weight"
    tensors = lora_pairs(KOHYA_MODULES, kohya, down, up, alpha=lambda i: 1.0 + i % 3)
    write("kohya.safetensors", tensors, {"ss_network_dim": "3", "ss_network_alpha": "1"})
    by_diffusers("kohya", [("kohya.safetensors", 0.8)])
    by_diffusers("several", [("kohya.safetensors", 0.8), ("diffusers.safetensors", -0.4), ("kohya.safetensors", 0.1)][:2])

    for name, dtype in [("kohya_f16", torch.float16), ("kohya_bf16", torch.bfloat16), ("kohya_f8", torch.float8_e4m3fn)]:
        modules = KOHYA_MODULES + REST if name == "kohya_bf16" else REST
        values = write(name + ".safetensors", lora_pairs(modules, kohya, down, up, 4, lambda i: 2.0), None, dtype)
        merged = merge_pairs(values, modules, kohya, down, up, 0.9)
        case(name, "merged", [(name + ".safetensors", 0.9)], merged.out())

    def comfy(m):
        return "diffusion_model." + m

    values = write("comfy.safetensors", lora_pairs(KOHYA_MODULES + REST, comfy, ".lora_A.weight", ".lora_B.weight"))
    case("comfy", "merged", [("comfy.safetensors", 1.0)],
         merge_pairs(values, KOHYA_MODULES + REST, comfy, ".lora_A.weight", ".lora_B.weight", 1.0).out())  # fmt: skip

    def raw(m):
        return "base_model.model." + m

    ends = (".lora_A.default.weight", ".lora_B.default.weight")
    values = write("peft.safetensors", lora_pairs(REST + KOHYA_MODULES[:3], raw, *ends))
    case("peft", "merged", [("peft.safetensors", 1.3)], merge_pairs(values, REST + KOHYA_MODULES[:3], raw, *ends, 1.3).out())

    xlabs = {}
    for m, n in [("double_blocks.0.processor.qkv_lora1", 3), ("double_blocks.0.processor.qkv_lora2", 3),
                 ("double_blocks.0.processor.proj_lora1", 1), ("double_blocks.0.processor.proj_lora2", 1),
                 ("single_blocks.1.processor.qkv_lora", 3)]:  # fmt: skip
        xlabs[m + ".down.weight"] = rand(2, HIDDEN)
        xlabs[m + ".up.weight"] = rand(n * HIDDEN, 2)
    xlabs["single_blocks.0.processor.proj_lora.down.weight"] = rand(2, HIDDEN + MLP)
    xlabs["single_blocks.0.processor.proj_lora.up.weight"] = rand(HIDDEN, 2)
    write("xlabs.safetensors", xlabs)
    by_diffusers("xlabs", [("xlabs.safetensors", 0.9)])

    trainer = {}
    for m in ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.add_v_proj", "transformer_blocks.0.attn.to_out.0",
              "single_transformer_blocks.1.attn.to_k", "norm_out.linear"]:  # fmt: skip
        out, n = FLUX_WEIGHTS[m + ".weight"].shape
        key = "lora_transformer_" + m.replace(".", "_")
        trainer[key + down], trainer[key + up] = rand(3, n), rand(out, 3)
        trainer[key + ".alpha"] = torch.tensor(2.0)
    write("onetrainer.safetensors", trainer)
    by_diffusers("onetrainer", [("onetrainer.safetensors", 1.1)])


def control_case():
    modules = KOHYA_MODULES + [m for m in REST if m != "img_in"]
    tensors = lora_pairs(modules, lambda m: m, ".lora_A.weight", ".lora_B.weight")
    for m in modules:
        tensors[m + ".lora_B.bias"] = rand(shapes(m)[0])
    scales = {"double_blocks.0.img_attn.norm.query_norm.scale": "transformer_blocks.0.attn.norm_q.weight",
              "double_blocks.0.txt_attn.norm.key_norm.scale": "transformer_blocks.0.attn.norm_added_k.weight",
              "single_blocks.1.norm.query_norm.scale": "single_transformer_blocks.1.attn.norm_q.weight"}  # fmt: skip
    for name in scales:
        tensors[name] = 1 + rand(16)
    values = write("control.safetensors", tensors)
    merged = merge_pairs(values, modules, lambda m: m, ".lora_A.weight", ".lora_B.weight", 0.85)
    for m in modules:
        merged.add(m, 0.85 * values[m + ".lora_B.bias"], "bias")
    for name, target in scales.items():
        merged.w[target] = values[name]
    case("control", "merged", [("control.safetensors", 0.85)], merged.out())


def lycoris_cases():
    def lycoris(m):
        return "lycoris_" + m.replace(".", "_")

    def diff(m):
        return Merged().w[m + ".weight"].shape

    # LoHa on diffusers' names, one with a core, one so wide that its product is smaller than its factors.
    tensors, merged = {}, Merged()
    for m, r, core in [("transformer_blocks.0.attn.to_q", 2, False), ("single_transformer_blocks.0.proj_mlp", 3, True),
                       ("norm_out.linear", 2, False), ("transformer_blocks.0.ff.net.2", 6, False)]:  # fmt: skip
        out, n = diff(m)
        key = lycoris(m)
        for f in ("w1", "w2"):
            tensors[f"{key}.hada_{f}_a"] = rand(*((r, out) if core else (out, r)))
            tensors[f"{key}.hada_{f}_b"] = rand(r, n)
            if core:
                tensors[f"{key}.hada_t{f[1]}"] = rand(r, r, 1, 1, std=1)
        tensors[key + ".alpha"] = torch.tensor(2.5)
    values = write("loha.safetensors", tensors)
    for m in ["transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_mlp", "norm_out.linear",
              "transformer_blocks.0.ff.net.2"]:  # fmt: skip
        key, product = lycoris(m), 1
        for f in ("w1", "w2"):
            a, b = values[f"{key}.hada_{f}_a"], values[f"{key}.hada_{f}_b"]
            t = values.get(f"{key}.hada_t{f[1]}")
            product = product * (a @ b if t is None else np.einsum("ijkl,jr,ip->prkl", t, b, a)[:, :, 0, 0])
        merged.w[m + ".weight"] += 1.2 * 2.5 / values[key + ".hada_w1_b"].shape[0] * product
    case("loha", "merged", [("loha.safetensors", 1.2)], merged.out())

    # LoKr in its four forms; alpha counts where a factor has a rank.
    tensors, merged = {}, Merged()
    forms = [("transformer_blocks.0.attn.to_k", "whole", 4), ("transformer_blocks.0.ff.net.0.proj", "second", 4),
             ("single_transformer_blocks.1.proj_out", "both", 8), ("norm_out.linear", "second", 2),
             ("single_transformer_blocks.0.attn.to_v", "first", 8)]  # fmt: skip
    for m, form, f in forms:
        out, n = diff(m)
        key = lycoris(m)
        for which, (rows, columns), low in [("w1", (f, f), form in ("first", "both")),
                                            ("w2", (out // f, n // f), form in ("second", "both"))]:  # fmt: skip
            if low:
                tensors[f"{key}.lokr_{which}_a"], tensors[f"{key}.lokr_{which}_b"] = rand(rows, 2), rand(2, columns)
            else:
                tensors[f"{key}.lokr_{which}"] = rand(rows, columns)
        tensors[key + ".alpha"] = torch.tensor(3.0)
    values = write("lokr.safetensors", tensors)
    for m, form, _ in forms:
        key = lycoris(m)

        def factor(which):
            whole = values.get(f"{key}.lokr_{which}")
            return whole if whole is not None else values[f"{key}.lokr_{which}_a"] @ values[f"{key}.lokr_{which}_b"]

        scale = 1.0 if form == "whole" else 3.0 / 2
        merged.w[m + ".weight"] += -0.7 * scale * np.kron(factor("w1"), factor("w2"))
    case("lokr", "merged", [("lokr.safetensors", -0.7)], merged.out())

    # Full differences of weights, biases and norms.
    tensors, merged = {}, Merged()
    for m in ["double_blocks.0.img_attn.qkv", "single_blocks.0.linear2", "final_layer.adaLN_modulation.1"]:
        tensors[kohya(m) + ".diff"] = rand(*shapes(m), std=0.1)
        tensors[kohya(m) + ".diff_b"] = rand(shapes(m)[0], std=0.1)
    tensors[kohya("img_in") + ".diff_b"] = rand(HIDDEN, std=0.1)
    norm = kohya("double_blocks.0.img_attn.norm.key_norm")
    tensors[norm + ".diff"] = rand(16)
    values = write("full.safetensors", tensors)
    for m in ["double_blocks.0.img_attn.qkv", "single_blocks.0.linear2", "final_layer.adaLN_modulation.1", "img_in"]:
        if m != "img_in":
            merged.add(m, 0.5 * values[kohya(m) + ".diff"])
        merged.add(m, 0.5 * values[kohya(m) + ".diff_b"], "bias")
    merged.w["transformer_blocks.0.attn.norm_k.weight"] += 0.5 * values[norm + ".diff"]
    case("full", "merged", [("full.safetensors", 0.5)], merged.out())

    # DoRA as LyCORIS writes it: norms of rows, or of columns.
    tensors, merged = {}, Merged()
    rows = ["double_blocks.0.img_mlp.0", "single_blocks.0.linear1"]
    columns = ["double_blocks.0.txt_attn.qkv", "final_layer.adaLN_modulation.1"]
    tensors = lora_pairs(rows + columns, kohya, ".lora_down.weight", ".lora_up.weight", 2, lambda i: 1.0)
    for m in rows:
        tensors[kohya(m) + ".dora_scale"] = 1 + rand(shapes(m)[0], 1).abs()
    for m in columns:
        tensors[kohya(m) + ".dora_scale"] = 1 + rand(1, shapes(m)[1]).abs()
    values = write("dora_lycoris.safetensors", tensors)
    for m in rows + columns:
        w, d = merged.get(m), values[kohya(m) + ".dora_scale"]
        delta = values[kohya(m) + ".lora_up.weight"] @ values[kohya(m) + ".lora_down.weight"] / 2
        if m in rows:  # the strength is in the delta, as peft has it
            v = w + 0.9 * delta
            merged.set(m, v * d / np.linalg.norm(v, axis=1, keepdims=True))
        else:  # the strength is between the weights
            v = w + delta
            merged.set(m, w + 0.9 * (v * d / np.linalg.norm(v, axis=0, keepdims=True) - w))
    case("dora_lycoris", "merged", [("dora_lycoris.safetensors", 0.9)], merged.out())


def text_cases():
    tensors = {}
    for m in ["text_model.encoder.layers.0.self_attn.q_proj", "text_model.encoder.layers.1.self_attn.out_proj",
              "text_model.encoder.layers.0.mlp.fc1", "text_model.encoder.layers.1.mlp.fc2"]:  # fmt: skip
        out, n = CLIP_WEIGHTS[m + ".weight"].shape
        key = "lora_te1_" + m.replace(".", "_")
        tensors[key + ".lora_down.weight"], tensors[key + ".lora_up.weight"] = rand(2, n), rand(out, 2)
        tensors[key + ".alpha"] = torch.tensor(1.0)
    flux = load_file(os.path.join(HERE, "kohya.safetensors"))
    tensors.update({k: v for k, v in flux.items() if "img_attn_proj" in k})
    for m in ["encoder.block.0.layer.0.SelfAttention.q", "encoder.block.1.layer.1.DenseReluDense.wo"]:
        out, n = T5_WEIGHTS[m + ".weight"].shape
        key = "lora_te3_" + m.replace(".", "_")
        tensors[key + ".lora_down.weight"], tensors[key + ".lora_up.weight"] = rand(2, n), rand(out, 2)
    values = write("kohya_text.safetensors", tensors)
    file = ("kohya_text.safetensors", 0.6)
    # diffusers knows CLIP's adapters by an older prefix, and none of T5's.
    without_t5 = {k.replace("lora_te1_", "lora_te_"): v for k, v in tensors.items() if not k.startswith("lora_te3")}
    pipe = pipeline(True)
    pipe.load_lora_weights(without_t5, adapter_name="a")
    pipe.set_adapters(["a"], [0.6])
    case("kohya_clip", "diffusers", [file], text_out(pipe.text_encoder, CLIP_IN), "text_encoder")
    weights = dict(T5_WEIGHTS)
    for m in ["encoder.block.0.layer.0.SelfAttention.q", "encoder.block.1.layer.1.DenseReluDense.wo"]:
        key = "lora_te3_" + m.replace(".", "_")
        delta = 0.6 * values[key + ".lora_up.weight"] @ values[key + ".lora_down.weight"]
        weights[m + ".weight"] = (weights[m + ".weight"].double() + torch.from_numpy(delta)).float()
    case("kohya_t5", "merged", [file], text_out(t5(weights), T5_IN), "text_encoder_2")


def main():
    plain = flux_out(transformer())
    diffusers_cases()
    bfl_cases()
    control_case()
    lycoris_cases()
    text_cases()
    before = {"transformer": plain, "text_encoder": text_out(clip(), CLIP_IN), "text_encoder_2": text_out(t5(T5_WEIGHTS), T5_IN)}
    for name, c in cases.items():  # every file must do something
        without = before[c["part"]]
        assert (outputs["out." + name] - without).abs().max() > 1e-2 * without.abs().max(), name
    versions = {p.__name__: p.__version__ for p in (torch, diffusers, transformers, peft)}
    save_file(
        {k: v.contiguous() for k, v in outputs.items()},
        os.path.join(HERE, "cases.safetensors"),
        metadata={"cases": json.dumps(cases), "versions": json.dumps(versions)},
    )
    for name, c in cases.items():
        print(name, c)


main()
