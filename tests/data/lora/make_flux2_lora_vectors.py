#!/usr/bin/env python3
"""Makes flux2_*.safetensors in this folder: LoRA files of FLUX.2's dialects, and what the packages draw with them.

Versions: python 3.11, torch 2.15, diffusers 0.42.1, peft, safetensors.

The base model is ../flux2/dev.safetensors. `out.CASE` in flux2_cases.safetensors is the velocity of all image tokens
with the file of the case (flux2_CASE.safetensors) at the strength that the metadata says: by the packages' own loaders
("diffusers", "peft"), or with weights merged here in float64 by the dialect's formula ("merged").
"""

import json
import os

import peft
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel
from safetensors import safe_open
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
with safe_open(os.path.join(HERE, "..", "flux2", "dev.safetensors"), "pt") as file:
    CONFIG = {k: v for k, v in json.loads(file.metadata()["config"]).items() if not k.startswith("_")}
    TENSORS = {k: file.get_tensor(k) for k in file.keys()}
WEIGHTS = {k[2:]: v.float() for k, v in TENSORS.items() if k.startswith("w.")}
H, TEXT = 16, 5
outputs, cases = {}, {}
torch.manual_seed(31)


def model(weights=None):
    out = Flux2Transformer2DModel(**CONFIG).eval()
    out.load_state_dict(weights or WEIGHTS)
    return out


def ids():
    text = torch.zeros(TEXT, 4)
    text[:, 3] = torch.arange(TEXT)
    grids = [torch.cartesian_prod(torch.tensor([10.0 * i]), torch.arange(float(r)), torch.arange(float(c)), torch.zeros(1))
             for i, (r, c) in enumerate([(2, 4), (3, 2), (1, 2)])]
    return text, torch.cat(grids)


@torch.no_grad()
def velocity(transformer):
    text, image = ids()
    return transformer(
        hidden_states=TENSORS["in.hidden_states"], encoder_hidden_states=TENSORS["in.encoder_hidden_states"],
        timestep=TENSORS["in.timestep"], guidance=TENSORS["in.guidance"], img_ids=image, txt_ids=text, return_dict=False,
    )[0]  # fmt: skip


def case(name, judge, strength, out):
    outputs["out." + name] = out.float().contiguous()
    cases[name] = {"judge": judge, "strength": strength}


def write(name, tensors, metadata=None):
    tensors = {k: v.half().contiguous() for k, v in tensors.items()}
    save_file(tensors, os.path.join(HERE, f"flux2_{name}.safetensors"), metadata=metadata)
    return {k: v.double() for k, v in tensors.items()}


def rand(*shape):
    return (torch.randn(shape) * 0.3).half()


def by_loader(name, strength=1.0):
    pipe = Flux2KleinPipeline(FlowMatchEulerDiscreteScheduler(), None, None, None, model())
    pipe.load_lora_weights(HERE, weight_name=f"flux2_{name}.safetensors", adapter_name="a")
    pipe.set_adapters(["a"], [strength])
    case(name, "diffusers", strength, velocity(pipe.transformer))


# (diffusers module, first row, rows) of what BFL calls a module; its rows' halves are exchanged for norm_out.
def places(module):
    parts = module.split(".")
    if parts[0] == "double_blocks":
        at, image, rest = f"transformer_blocks.{parts[1]}.", parts[2].startswith("img"), ".".join(parts[2:])[4:]
        if rest == "attn.qkv":
            names = ("to_q", "to_k", "to_v") if image else ("add_q_proj", "add_k_proj", "add_v_proj")
            return [(f"{at}attn.{n}", i * H, H) for i, n in enumerate(names)]
        names = {"attn.proj": "attn.to_out.0" if image else "attn.to_add_out",
                 "mlp.0": f"ff{'' if image else '_context'}.linear_in", "mlp.2": f"ff{'' if image else '_context'}.linear_out"}
        return [(at + names[rest], 0, None)]
    if parts[0] == "single_blocks":
        at = f"single_transformer_blocks.{parts[1]}.attn."
        return [(at + {"linear1": "to_qkv_mlp_proj", "linear2": "to_out"}[parts[2]], 0, None)]
    return [({
        "img_in": "x_embedder", "txt_in": "context_embedder", "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
        "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
        "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2", "final_layer.linear": "proj_out",
        "final_layer.adaLN_modulation.1": "norm_out.linear", "single_stream_modulation.lin": "single_stream_modulation.linear",
        "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
        "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    }[module], 0, None)]  # fmt: skip


BFL = (
    ["double_blocks.0." + m for m in ("img_attn.qkv", "txt_attn.qkv", "img_attn.proj", "txt_attn.proj", "img_mlp.0", "img_mlp.2", "txt_mlp.0", "txt_mlp.2")]
    + ["single_blocks.1.linear1", "single_blocks.0.linear2", "img_in", "txt_in", "time_in.in_layer", "time_in.out_layer"]
    + ["guidance_in.out_layer", "final_layer.linear", "final_layer.adaLN_modulation.1", "single_stream_modulation.lin"]
    + ["double_stream_modulation_img.lin", "double_stream_modulation_txt.lin"]
)  # fmt: skip


def shape_of(module):
    found = places(module)
    weight = WEIGHTS[found[0][0] + ".weight"]
    return len(found) * weight.shape[0], weight.shape[1]


def merged(name, deltas, strength):
    """deltas: {BFL module: its rows' change}"""
    weights = {k: v.double() for k, v in WEIGHTS.items()}
    for module, delta in deltas.items():
        if module == "final_layer.adaLN_modulation.1":
            delta = torch.cat(delta.chunk(2)[::-1])
        for diffusers, row, rows in places(module):
            weights[diffusers + ".weight"] += strength * delta[row : row + rows if rows else None]
    case(name, "merged", strength, velocity(model({k: v.float() for k, v in weights.items()})))


def bfl_file(name, key, down, up, alpha, strength):
    tensors = {}
    for i, module in enumerate(BFL):
        rank, (rows, columns) = 1 + i % 4, shape_of(module)
        tensors[key(module) + down], tensors[key(module) + up] = rand(rank, columns), rand(rows, rank)
        if alpha:
            tensors[key(module) + ".alpha"] = torch.tensor(float(alpha))
    read = write(name, tensors)
    deltas = {}
    for module in BFL:
        a, b = read[key(module) + down], read[key(module) + up]
        deltas[module] = b @ a * (alpha / a.shape[0] if alpha else 1)
    merged(name, deltas, strength)


def kohya(module):
    return "lora_unet_" + module.replace(".", "_")


def with_adapter(**named):
    transformer = model()
    config = peft.LoraConfig(
        r=3, lora_alpha=2, init_lora_weights=False,
        target_modules=r".*(\.to_[qkv]|add_k_proj|to_out\.0|to_add_out|linear_(in|out|1)|to_qkv_mlp_proj|single_.*\.attn\.to_out"
                       r"|x_embedder|context_embedder|proj_out|norm_out\.linear|single_stream_modulation\.linear)",
        **named)  # fmt: skip
    transformer.add_adapter(config)
    for n, p in transformer.named_parameters():
        if "lora_" in n:
            p.data = (p.data.half() * 3).float()
    return transformer


def main():
    bfl_file("kohya", kohya, ".lora_down.weight", ".lora_up.weight", 2, 0.7)
    bfl_file("comfy", lambda m: "diffusion_model." + m, ".lora_A.weight", ".lora_B.weight", None, 1.0)
    bfl_file("bare", lambda m: m, ".lora_A.weight", ".lora_B.weight", None, -0.5)

    # diffusers' own file, and what its loader makes of it.
    transformer = with_adapter()
    state = peft.get_peft_model_state_dict(transformer)
    Flux2KleinPipeline.save_lora_weights(HERE, transformer_lora_layers={k: v.half() for k, v in state.items()}, weight_name="flux2_diffusers.safetensors",
                                         transformer_lora_adapter_metadata={"r": 3, "lora_alpha": 2, "target_modules": ["to_q"]})  # fmt: skip
    by_loader("diffusers", 0.8)

    # peft's file of the bare model.
    wrapped = peft.PeftModel(model(), peft.LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["to_k", "to_qkv_mlp_proj", "linear_out", "norm_out.linear"]))
    state = write("peft", peft.get_peft_model_state_dict(wrapped), {"alpha": "none"})
    with torch.no_grad():
        loaded = peft.PeftModel(model(), peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_k", "to_qkv_mlp_proj", "linear_out", "norm_out.linear"]))
        peft.set_peft_model_state_dict(loaded, {k: v.float() for k, v in state.items()})
        case("peft", "peft", 1.0, velocity(loaded))

    # LyCORIS' Kronecker products under diffusers' names, for q, k and v together as well.
    tensors, deltas = {}, {}
    for foreign, module in (("transformer_blocks.0.attn.to_qkv", "double_blocks.0.img_attn.qkv"), ("transformer_blocks.0.ff_context.linear_in", "double_blocks.0.txt_mlp.0"),
                            ("single_transformer_blocks.0.attn.to_qkv_mlp_proj", "single_blocks.0.linear1"), ("transformer_blocks.0.attn.to_added_qkv", "double_blocks.0.txt_attn.qkv")):
        rows, columns = shape_of(module)
        key = "lycoris_" + foreign.replace(".", "_")
        tensors |= {key + ".lokr_w1": rand(4, 2), key + ".lokr_w2": rand(rows // 4, columns // 2), key + ".alpha": torch.tensor(1.0)}
        deltas[module] = key
    read = write("lokr", tensors)
    merged("lokr", {m: torch.kron(read[k + ".lokr_w1"], read[k + ".lokr_w2"]) for m, k in deltas.items()}, 1.0)

    save_file(outputs, os.path.join(HERE, "flux2_cases.safetensors"), metadata={"cases": json.dumps(cases)})
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
