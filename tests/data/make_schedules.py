#!/usr/bin/env python3
"""Noise levels, times and whole trajectories of diffusers' schedulers, and of ComfyUI's schedules, as JSON.

    pip install diffusers==0.35.1 torch scipy
    tests/data/make_schedules.py tests/data/schedules.json

A trajectory is of a few numbers and a velocity that is a formula, v(x, t) = TANH * tanh(x) + WAVE * sin(3 t) + 0.1,
with t what FluxPipeline gives the transformer. Where a scheduler draws noise it gets numbers of this file, one row a
step. Every scheduler is driven as diffusers' FluxPipeline drives it, or, where that can't (Heun; DPM-Solver without
dynamic shifting), by its own set_timesteps().
"""

import json
import math
import sys

import diffusers
import numpy as np
import scipy
import scipy.stats
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

TANH, WAVE = 0.8, 0.5
X = [-1.3, -0.4, 0.2, 0.9, 2.1]
CLASSES = {
    c.__name__: c
    for c in (
        FlowMatchEulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
        FlowMatchLCMScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
    )
}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def velocity(x, t):
    return TANH * torch.tanh(x) + WAVE * math.sin(3 * t) + 0.1


def noise_rows(n):
    return np.random.RandomState(7).randn(n, len(X)).astype(np.float32)


def run(config, steps, tokens, start=0):
    config = dict(config)
    kind = config.pop("_class_name", "FlowMatchEulerDiscreteScheduler")
    scheduler = CLASSES[kind].from_config({"_class_name": kind, **config})
    heun = kind == "FlowMatchHeunDiscreteScheduler"
    get = scheduler.config.get
    mu = calculate_shift(
        tokens, get("base_image_seq_len", 256), get("max_image_seq_len", 4096), get("base_shift", 0.5), get("max_shift", 1.15)
    )
    solver = kind in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
    if heun or (solver and not get("use_dynamic_shifting")):
        scheduler.set_timesteps(steps)
    else:
        sigmas = np.linspace(1.0, 1 / steps, steps)
        if getattr(scheduler.config, "use_flow_sigmas", False):
            sigmas = None
        retrieve_timesteps(scheduler, steps, "cpu", sigmas=sigmas, mu=mu)
    order = scheduler.order
    scheduler.set_begin_index(start * order)
    rows = noise_rows(steps)
    drawn = iter(rows[start:])

    def draw(*_, **__):
        return torch.from_numpy(next(drawn))[None, None]

    module = sys.modules[CLASSES[kind].__module__]
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = draw
    like, torch.randn_like = torch.randn_like, draw
    x = torch.tensor(X, dtype=torch.float32)[None, None]
    trajectory = []
    try:
        for i, t in enumerate(scheduler.timesteps[start * order :]):
            v = velocity(x, (t.to(x.dtype) / 1000).item())
            x = scheduler.step(v, t, x, return_dict=False)[0]
            trajectory.append(x)
    finally:
        torch.randn_like = like
    sigmas = scheduler.sigmas.tolist()
    times = (scheduler.timesteps.float() / 1000).tolist()
    if heun:  # every level but the ends stands there twice, and every second x is half a step
        sigmas = [sigmas[0]] + sigmas[1:-1:2] + [0.0]
        times = [times[0]] + times[1::2]
        trajectory = [x for i, x in enumerate(trajectory) if i % 2 == 1 or i == len(trajectory) - 1]
    return {
        "levels": [round(s, 9) for s in sigmas],
        "times": [round(t, 9) for t in times],
        "x": [[round(float(v), 7) for v in x.flatten()] for x in trajectory],
    }


def euler_cases():
    base = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
    yield {}, 4, 4096
    yield {"shift": 3.0}, 5, 77
    yield {"shift": 3}, 1, 77
    yield {"shift": 0.4}, 6, 77
    yield {"num_train_timesteps": 500}, 4, 64
    yield {"num_train_timesteps": 2000, "shift": 2.5}, 5, 64
    yield base, 20, 1024
    yield base, 1, 4096
    yield {**base, "base_shift": -0.3, "max_shift": 2}, 7, 333
    yield {**base, "base_image_seq_len": 16, "max_image_seq_len": 64}, 6, 40
    yield {**base, "time_shift_type": "linear"}, 6, 1024
    yield {**base, "time_shift_type": "linear", "base_shift": 1.7, "max_shift": 3.0}, 4, 4096
    yield {"time_shift_type": "linear", "shift": 2.0}, 4, 4096
    yield {**base, "shift_terminal": 0.1}, 6, 1024
    yield {"shift_terminal": 0.02, "shift": 3.0}, 5, 1024
    yield {"shift_terminal": None}, 3, 1024
    yield {"shift_terminal": 0}, 3, 1024
    yield {"invert_sigmas": True}, 5, 64
    yield {**base, "invert_sigmas": True, "shift_terminal": 0.05}, 6, 64
    for name in ("karras", "exponential", "beta"):
        yield {f"use_{name}_sigmas": True}, 8, 64
        yield {**base, f"use_{name}_sigmas": True}, 12, 1024
        yield {**base, f"use_{name}_sigmas": True, "shift_terminal": 0.1, "time_shift_type": "linear"}, 5, 2000
        yield {f"use_{name}_sigmas": True, "shift": 5.0, "num_train_timesteps": 250}, 3, 64
        yield {f"use_{name}_sigmas": True}, 1, 64
        yield {f"use_{name}_sigmas": True, "sigma_min": 0.01, "sigma_max": 0.9}, 4, 64
        yield {f"use_{name}_sigmas": True, "invert_sigmas": True}, 4, 64
    yield {"stochastic_sampling": True}, 5, 64
    yield {**base, "stochastic_sampling": True, "use_beta_sigmas": True}, 6, 1024
    yield {"use_flow_sigmas": True, "shift": 3.0}, 5, 64
    yield {**base, "use_flow_sigmas": True}, 5, 64
    yield {**base, "num_train_timesteps": 100, "use_karras_sigmas": True}, 40, 4096


def other_cases():
    for steps, shift, train in ((1, 1.0, 1000), (4, 1.0, 1000), (7, 3.0, 1000), (5, 2.0, 300)):
        yield {"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": shift, "num_train_timesteps": train}, steps, 64
    lcm = {"_class_name": "FlowMatchLCMScheduler"}
    yield {**lcm, "shift": 3.0}, 4, 64
    yield {**lcm, "use_dynamic_shifting": True}, 8, 1024
    yield {**lcm, "use_dynamic_shifting": True, "use_exponential_sigmas": True, "shift_terminal": 0.2}, 5, 1024
    yield {**lcm, "scale_factors": [], "upscale_mode": "bicubic"}, 2, 64
    yield {**lcm, "scale_factors": [0.5, 0.75], "upscale_mode": None, "num_train_timesteps": 1500}, 3, 64
    dpm = {"_class_name": "DPMSolverMultistepScheduler", **FLOW}
    grow = {"use_dynamic_shifting": True}
    for order in (1, 2, 3):
        for form in ("midpoint", "heun"):
            for kind in ("dpmsolver++", "sde-dpmsolver++"):
                yield {**dpm, **grow, "solver_order": order, "solver_type": form, "algorithm_type": kind}, 8, 1024
    yield {**dpm, "flow_shift": 3.0}, 6, 64
    yield {**dpm, "flow_shift": 3.0}, 1, 64
    yield {**dpm, "flow_shift": 3.0}, 2, 64
    yield {**dpm, **grow}, 20, 4096
    yield {**dpm, **grow, "solver_order": 3}, 20, 4096
    yield {**dpm, **grow, "solver_order": 3, "lower_order_final": False}, 6, 4096
    yield {**dpm, **grow, "euler_at_final": True, "final_sigmas_type": "sigma_min"}, 16, 4096
    yield {**dpm, **grow, "final_sigmas_type": "sigma_min"}, 6, 4096
    yield {**dpm, **grow, "final_sigmas_type": "sigma_min"}, 16, 4096
    yield {**dpm, **grow, "final_sigmas_type": "sigma_min", "beta_start": 0.00085, "beta_schedule": "scaled_linear"}, 5, 64
    yield {**dpm, **grow, "final_sigmas_type": "sigma_min", "beta_schedule": "squaredcos_cap_v2"}, 5, 64
    yield {**dpm, **grow, "base_shift": 0.2, "max_shift": 2.2, "base_image_seq_len": 100}, 5, 900
    yield {**dpm, "num_train_timesteps": 400, "flow_shift": 2.0, "solver_type": "logrho", "algorithm_type": "deis", "final_sigmas_type": "sigma_min"}, 5, 64
    yield {**dpm, **grow, "timestep_spacing": "trailing", "steps_offset": 1, "lambda_min_clipped": -5.1}, 5, 64
    unipc = {"_class_name": "UniPCMultistepScheduler", **FLOW}
    for order in (1, 2, 3, 4):
        for form in ("bh2", "bh1"):
            last = {"final_sigmas_type": "sigma_min"} if form == "bh1" else {}
            yield {**unipc, **grow, "solver_order": order, "solver_type": form, **last}, 9, 1024
    yield {**unipc, "flow_shift": 3.0}, 6, 64
    yield {**unipc, "flow_shift": 3.0}, 1, 64
    yield {**unipc, "flow_shift": 1.0}, 2, 64
    yield {**unipc, **grow, "disable_corrector": [0, 1, 4]}, 8, 1024
    yield {**unipc, **grow, "solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"}, 7, 1024
    yield {**unipc, **grow, "solver_order": 3, "solver_type": "midpoint"}, 25, 4096
    yield {**unipc, "flow_shift": 5.0, "num_train_timesteps": 600, "solver_order": 3}, 6, 64


def flux_table(mu):
    """ComfyUI's table of a model that shifts with e^mu; of one that doesn't."""
    size = 10000 if mu is not None else 1000
    level = lambda t: math.exp(mu) / (math.exp(mu) + 1 / t - 1) if mu is not None else t
    return level, [level(i / size) for i in range(1, size + 1)]


def comfy(name, mu, n):
    """What ComfyUI's scheduler of that name gives, from its definition, in double precision."""
    level, table = flux_table(mu)
    least, most, size = table[0], table[-1], len(table)
    ramp = np.linspace(0, 1, n)
    if name == "simple":
        out = [table[size - 1 - int(i * (size / n))] for i in range(n)]
    elif name == "normal":
        out = [level(t) for t in np.linspace(most, least, n)]
    elif name == "sgm_uniform":
        out = [level(t) for t in np.linspace(most, least, n + 1)[:-1]]
    elif name == "ddim_uniform":
        out = table[1 :: max(size // n, 1)][::-1]
    elif name == "comfy_karras":
        out = list((most ** (1 / 7) + ramp * (least ** (1 / 7) - most ** (1 / 7))) ** 7)
    elif name == "comfy_exponential":
        out = list(np.exp(np.linspace(math.log(most), math.log(least), n)))
    elif name == "comfy_beta":
        places = np.rint(scipy.stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6) * (size - 1))
        out = [table[int(p)] for i, p in enumerate(places) if i == 0 or p != places[i - 1]]
    elif name == "kl_optimal":
        out = list(np.tan(ramp * math.atan(least) + (1 - ramp) * math.atan(most)))
    elif name == "linear_quadratic":
        half, gone = n // 2, 0.025
        rest = half - gone * n
        square, slope = rest / (half * (n - half) ** 2), gone / half - 2 * rest / (n - half) ** 2
        out = [1 - i * gone / half for i in range(half)]
        out += [1 - (square * i * i + slope * i + square * half**2) for i in range(half, n)]
        out = [most * s for s in out]
    return [round(float(s), 9) for s in out] + [0.0]


def main():
    cases = []
    for start in (0, 2):
        for config, steps, tokens in list(euler_cases()) + list(other_cases()):
            if start and (steps < 4 or len(cases) % 3):
                cases.append(None)
                continue
            try:
                got = run(config, steps, tokens, start)
            except (ValueError, TypeError, AssertionError, IndexError) as error:
                print("diffusers can't:", config, steps, repr(error), file=sys.stderr)
                cases.append(None)
                continue
            if not np.all(np.isfinite(got["x"])):
                print("not finite:", config, steps, file=sys.stderr)
                cases.append(None)
                continue
            cases.append({"config": config, "steps": steps, "tokens": tokens, "start": start, **got})
    cases = [c for c in cases if c]
    names = ["simple", "normal", "sgm_uniform", "ddim_uniform", "comfy_karras", "comfy_exponential", "comfy_beta", "kl_optimal", "linear_quadratic"]
    picked = [
        {"schedule": name, "mu": mu, "steps": n, "levels": comfy(name, mu, n)} for name in names for mu, n in ((1.15, 20), (0.63, 7), (None, 4), (1.15, 2))
    ]
    betas = [[p, a, b, float(scipy.stats.beta.ppf(p, a, b))] for a, b in ((0.6, 0.6), (2, 5), (0.5, 3)) for p in (0, 1e-6, 1e-4, 0.1, 0.37, 0.5, 0.9, 0.999, 1)]
    out = {
        "made_by": {"diffusers": diffusers.__version__, "torch": torch.__version__, "scipy": scipy.__version__, "numpy": np.__version__},
        "tanh": TANH,
        "wave": WAVE,
        "x": X,
        "noise": [[round(float(v), 7) for v in row] for row in noise_rows(40)],
        "cases": cases,
        "comfyui": picked,
        "beta_quantiles": betas,
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("{\n")
        keys = list(out)
        for key in keys:
            end = ",\n" if key != keys[-1] else "\n"
            if key in ("cases", "comfyui"):
                rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in out[key])
                file.write(f'"{key}":[\n{rows}\n]{end}')
            else:
                file.write(f'"{key}":{json.dumps(out[key], separators=(",", ":"))}{end}')
        file.write("}\n")
    print(len(cases), "trajectories,", len(picked), "schedules")


if __name__ == "__main__":
    main()
