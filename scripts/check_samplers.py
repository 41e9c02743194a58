#!/usr/bin/env python3
"""Draws with diffusers' FluxPipeline under many scheduler configs, and compares vkflux's pictures.

    pip install torch diffusers transformers sentencepiece protobuf scipy
    scripts/check_samplers.py [--model models/emoji] [--program build/vkflux]

Every case is a scheduler_config.json with a number of steps, true guidance and a negative prompt; both programs
draw from the same noise, and more than one 8-bit step of difference fails. --vectors FILE writes what diffusers
drew, for tests/data; --random N adds N configs with fields drawn at random.
"""

import argparse
import base64
import json
import os
import random
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

SEED = 3
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True}
EULER = "FlowMatchEulerDiscreteScheduler"
DPM = {"_class_name": "DPMSolverMultistepScheduler", **FLOW}
UNIPC = {"_class_name": "UniPCMultistepScheduler", **FLOW}
GROW = {"use_dynamic_shifting": True}

CASES = [  # config, steps, true guidance, prompt, negative
    ({}, 4, 1, "red apple", ""),
    ({"shift": 3.0}, 4, 2.5, "red apple", "fox face"),
    ({**GROW, "base_shift": 0.8, "max_shift": 2}, 5, 2, "fox face", ""),
    ({**GROW, "time_shift_type": "linear", "base_shift": 1.5}, 4, 1, "fox face", ""),
    ({**GROW, "shift_terminal": 0.1}, 4, 1, "red apple", ""),
    ({"num_train_timesteps": 500}, 4, 1, "red apple", ""),
    ({"num_train_timesteps": 1200, "shift": 2}, 3, 3, "red apple", "leaf"),
    ({"invert_sigmas": True}, 4, 1, "red apple", ""),
    ({"use_karras_sigmas": True}, 6, 1, "red apple", ""),
    ({**GROW, "use_exponential_sigmas": True}, 6, 2, "red apple", ""),
    ({"use_beta_sigmas": True, "shift": 2.0}, 6, 1, "fox face", ""),
    ({"stochastic_sampling": True}, 4, 1, "red apple", ""),
    ({"_class_name": "FlowMatchLCMScheduler", "shift": 2.0}, 4, 2, "red apple", ""),
    ({**DPM}, 6, 1, "red apple", ""),
    ({**DPM, "solver_order": 3, "max_shift": 2.5}, 6, 2, "fox face", ""),
    ({**DPM, "solver_type": "heun", "final_sigmas_type": "sigma_min"}, 5, 1, "red apple", ""),
    ({**DPM, "algorithm_type": "sde-dpmsolver++"}, 6, 1, "red apple", ""),
    ({**DPM, "num_train_timesteps": 700}, 5, 1, "red apple", ""),
    ({**UNIPC}, 6, 1, "red apple", ""),
    ({**UNIPC, "solver_order": 3, "disable_corrector": [0]}, 6, 2, "fox face", "red"),
    ({**UNIPC, "solver_type": "bh1", "final_sigmas_type": "sigma_min"}, 5, 1, "red apple", ""),
]


def random_case(rng):
    kind = rng.choice([EULER, EULER, "FlowMatchLCMScheduler", DPM["_class_name"], UNIPC["_class_name"]])
    config = {"_class_name": kind, "base_shift": rng.uniform(-0.5, 1), "max_shift": rng.uniform(0.5, 3)}
    config["num_train_timesteps"] = rng.choice([1000, 1000, 250, 1500])
    if "Flow" in kind:
        config["use_dynamic_shifting"] = rng.random() < 0.5
        config["shift"] = rng.choice([1, 0.5, 3.0])
        config["time_shift_type"] = rng.choice(["exponential", "linear"])
        if config["time_shift_type"] == "linear":
            config["base_shift"] = config["base_shift"] + 1
        config["shift_terminal"] = rng.choice([None, 0, 0.05, 0.3])
        config["invert_sigmas"] = rng.random() < 0.2
        spacing = rng.choice([None, "karras", "exponential", "beta"])
        if spacing:
            config[f"use_{spacing}_sigmas"] = True
        if kind == EULER:
            config["stochastic_sampling"] = rng.random() < 0.3
    else:
        config.update(FLOW)
        config["solver_order"] = rng.choice([1, 2, 3])
        config["lower_order_final"] = rng.random() < 0.8
        if kind == DPM["_class_name"]:
            config["solver_type"] = rng.choice(["midpoint", "heun"])
            config["algorithm_type"] = rng.choice(["dpmsolver++", "sde-dpmsolver++"])
            config["euler_at_final"] = rng.random() < 0.3
            config["final_sigmas_type"] = rng.choice(["zero", "sigma_min"])
        else:
            config["disable_corrector"] = rng.choice([[], [0], [1, 2]])
    return config, rng.randint(2, 18), rng.choice([1, 1, 2.5]), rng.choice(["red apple", "fox face"]), rng.choice(["", "leaf"])


class Noise:
    """The steps' fresh noise, as `vkflux sample --noise mersenne` draws it: one generator of seed + 1."""

    def __init__(self, channels, height, width):
        self.generator = torch.Generator().manual_seed(SEED + 1)
        self.shape = (1, channels, height, width)

    def __call__(self, *_, **__):
        from diffusers import FluxPipeline

        x = torch.randn(self.shape, generator=self.generator)
        return FluxPipeline._pack_latents(x, *self.shape)


def draw(pipe, case, tokens, size):
    import diffusers

    config, steps, cfg, prompt, negative = case
    kind = config.get("_class_name", EULER)
    pipe.scheduler = getattr(diffusers, kind).from_config({"_class_name": kind, **{k: v for k, v in config.items() if k[0] != "_"}})
    side = 2 * (size // (pipe.vae_scale_factor * 2))
    noise = Noise(pipe.transformer.config.in_channels // 4, side, side)
    module = sys.modules[type(pipe.scheduler).__module__]
    kept = torch.randn_like
    torch.randn_like = noise
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = noise
    try:
        picture = pipe(
            prompt,
            negative_prompt=negative if cfg != 1 else None,
            true_cfg_scale=cfg,
            num_inference_steps=steps,
            width=size,
            height=size,
            max_sequence_length=tokens,
            generator=torch.Generator().manual_seed(SEED),
        ).images[0]
    finally:
        torch.randn_like = kept
    return np.asarray(picture.convert("RGB"))


def ours(program, model, case, size):
    config, steps, cfg, prompt, negative = case
    with tempfile.TemporaryDirectory() as folder:
        for name in os.listdir(model):
            if name != "scheduler":
                os.symlink(os.path.abspath(os.path.join(model, name)), os.path.join(folder, name))
        os.mkdir(os.path.join(folder, "scheduler"))
        with open(os.path.join(folder, "scheduler", "scheduler_config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
        out = os.path.join(folder, "picture.png")
        command = [program, "sample", "--model", folder, "--prompt", prompt, "--seed", str(SEED), "--noise", "mersenne"]
        command += ["--steps", str(steps), "--cfg", str(cfg), "--size", f"{size}x{size}", "--out", out]
        if cfg != 1 and negative:
            command += ["--negative", negative]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        return np.asarray(Image.open(out).convert("RGB"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/emoji")
    parser.add_argument("--program", default="build/vkflux")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--random-seed", type=int, default=1)
    parser.add_argument("--vectors", help="write what diffusers drew to this file, and don't run vkflux")
    args = parser.parse_args()

    import diffusers

    with open(os.path.join(args.model, "model_index.json"), encoding="utf-8") as file:
        tokens = json.load(file).get("vkflux", {}).get("txt_tokens", 512)
    pipe = diffusers.FluxPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    rng = random.Random(args.random_seed)
    cases = CASES + [random_case(rng) for _ in range(args.random)]
    rows, bad = [], 0
    for case in cases:
        try:
            theirs = draw(pipe, case, tokens, args.size)
        except Exception as error:  # pylint: disable=broad-except
            print("diffusers can't:", case[0], repr(error))
            continue
        if args.vectors:
            config, steps, cfg, prompt, negative = case
            picture = base64.b64encode(theirs.tobytes()).decode()
            rows.append({"config": config, "steps": steps, "cfg": cfg, "prompt": prompt, "negative": negative, "rgb": picture})
            continue
        mine = ours(args.program, args.model, case, args.size)
        if isinstance(mine, str):
            print("vkflux refuses", case[0], mine)
            continue
        apart = int(np.abs(theirs.astype(int) - mine.astype(int)).max())
        bad += apart > 1
        print(f"{apart:3} of 255 apart: {case}")
    if args.vectors:
        made_by = {"torch": torch.__version__, "diffusers": diffusers.__version__}
        with open(args.vectors, "w", encoding="utf-8") as file:
            json.dump({"made_by": made_by, "seed": SEED, "size": args.size, "pictures": rows}, file, indent=1)
            file.write("\n")
        return 0
    print("all agree" if not bad else f"{bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
