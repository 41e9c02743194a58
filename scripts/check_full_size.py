#!/usr/bin/env python3
"""Draws one small picture with a whole model of a published size, resident and streamed, and compares.

    scripts/check_full_size.py --folder /tmp/full [--program build/vkflux] [--type q4_k] [--vram 14 6]

The weights are random (`vkflux convert --synthetic`): the picture means nothing, but every byte and product
of the whole pipeline is there. FLUX.1 needs about 12 GB of disk in q4_k (16 in f8) and as much memory as the
largest --vram; CLIP's vocabulary as scripts/get-clip-vocabulary brings it. One run for each --vram. Fails unless all
pictures and latents have the same bits, and the plan's peak is within 5 % of what the pool measured.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time

# Of each family: flag, name of the size, type, ending; and the tokenizers that stand for the published ones.
FLUX1 = {"--clip_l": ("clip_l", "f16", "safetensors"), "--t5xxl": ("t5xxl", "q4_k", "gguf"), "--vae": ("ae", "f32", "safetensors")}
FLUX2 = {"--llm": ("qwen3_4b", "q4_k", "gguf"), "--vae": ("ae2", "f32", "safetensors")}
PARTS = {
    "flux1-dev": FLUX1,
    "flux1-schnell": FLUX1,
    "flux2-klein-4b": FLUX2,
    "flux2-klein-9b": {**FLUX2, "--llm": ("qwen3_8b", "q4_k", "gguf")},
    "flux2-dev": {**FLUX2, "--llm": ("mistral_small", "q4_k", "gguf")},
}
TOKENIZERS = {
    "flux1": ["--tokenizer_2", "models/emoji/tokenizer_2"],
    "flux2": ["--tokenizer", "tests/data/flux2_pipelines/klein/tokenizer"],
    "flux2-dev": ["--tokenizer", "tests/data/flux2_pipelines/dev/tokenizer"],
}
TOLERANCE = 0.05  # of the plan


def part(options, size, kind, ending):
    """The file of a part, made unless it is there."""
    path = os.path.join(options.folder, f"{size}-{kind}.{ending}")
    if not os.path.exists(path):
        begin = time.monotonic()
        subprocess.run([options.program, "convert", "--synthetic", size, path, "--type", kind], check=True)
        print(f"{path}: {os.path.getsize(path) / 1e9:.2f} GB in {time.monotonic() - begin:.0f} s", flush=True)
    return path


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def draw(options, model, parts, vram):
    out = os.path.join(options.folder, f"{options.size}-{vram}")
    command = [options.program, "sample", "--json", "--model", model, "--prompt", "a cat", "--vram", vram]
    for flag, path in parts.items():
        command += [flag, path]
    command += TOKENIZERS.get(options.model, TOKENIZERS[options.model[:5]]) + ["--size", options.size, "--steps", str(options.steps)]
    command += ["--text-length", str(options.text_length), "--no-prompt-cache", "--save-latents", out + ".safetensors"]
    begin = time.monotonic()
    run = subprocess.run(command + ["--out", out + ".png"], check=True, stdout=subprocess.PIPE)
    result = json.loads(run.stdout)
    result["wall_s"] = time.monotonic() - begin
    result["bits"] = digest(out + ".png") + digest(out + ".safetensors")
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/vkflux")
    parser.add_argument("--folder", required=True, help="where the weights are kept")
    parser.add_argument("--model", default="flux1-dev", choices=list(PARTS))
    parser.add_argument("--type", default="q4_k", help="of the transformer: a type of blocks, or f8")
    parser.add_argument("--vram", nargs="+", default=["14", "6"], help="GiB of each run")
    parser.add_argument("--size", default="64x64")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--text-length", type=int, default=64)
    options = parser.parse_args()
    os.makedirs(options.folder, exist_ok=True)

    model = part(options, options.model, options.type, "safetensors" if options.type == "f8" else "gguf")
    parts = {flag: part(options, *size) for flag, size in PARTS[options.model].items()}
    failed = False
    rows = []
    for vram in options.vram:
        r = draw(options, model, parts, vram)
        memory = r["memory"]
        streamed = {p["name"]: f"{p['streamed_layers']} of {p['layers']}" for p in memory["parts"] if p["layers"]}
        planned, measured = memory["peak_bytes"], memory["measured_peak_bytes"]
        off = abs(planned - measured) / measured
        rows.append(r["bits"])
        print(
            f"--vram {vram}: planned {planned / 2**30:.3f} GiB, measured {measured / 2**30:.3f} ({100 * off:.2f} % apart); "
            f"layers that stream: {streamed}; encode {r['encode_s']:.1f} s, {options.steps} steps {r['denoise_s']:.1f} s, "
            f"decode {r['decode_s']:.1f} s, all {r['wall_s']:.0f} s",
            flush=True,
        )
        failed = failed or off > TOLERANCE
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 2**30
    same = len(set(rows)) == 1
    print(f"bits {'equal' if same else 'DIFFER'}; resident set at most {peak:.2f} GiB, the mapped files' pages included")
    return 1 if failed or not same else 0


if __name__ == "__main__":
    sys.exit(main())
