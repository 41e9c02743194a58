#!/usr/bin/env python3
"""Draws the same picture with vkflux and with stable-diffusion.cpp, from the same files, and compares.

    bench/peers/sdcpp.py --vkflux build/vkflux --sd-cli sd-cli --folder /tmp/flux --out record.json

The files are of FLUX.1 dev at its full width and a small depth, with random weights (`vkflux convert --synthetic`): a GGUF of
blocks and a safetensors file of the transformer, both encoders and the autoencoder. Noise is the Mersenne Twister's of both
programs, noise levels are given by hand, 256 text tokens. Rounds of both in turn; times are those that the programs print,
peak memory is the process's resident set; the shortest of the rounds counts for both.
Prints a table in Markdown; --out keeps the figures.
"""
import argparse
import json
import math
import os
import re
import subprocess
import sys
import time

import numpy as np
from PIL import Image

PROMPT = "a red fox in the snow"
LEVELS = "1,0.9,0.75,0.5,0"
# name, its file, what --type makes it
MODELS = [("q8_0 GGUF", "flux1-small-q8_0.gguf", "q8_0"), ("q4_k GGUF", "flux1-small-q4_k.gguf", "q4_k"),
          ("f16 safetensors", "flux1-small-f16.safetensors", "f16")]


def files(args):
    """{flag: path} of the other parts, and the models that were asked for; made unless they are there."""
    def made(path, size, kind, *more):
        path = os.path.join(args.folder, path)
        if not os.path.exists(path):
            subprocess.run([args.vkflux, "convert", "--synthetic", size, path, "--type", kind, *more], check=True)
        return path

    depth = ["--depth", str(args.depth), "--depth-single", str(args.depth)]
    parts = {"--clip_l": made("clip_l-f16.safetensors", "clip_l", "f16"),
             "--t5xxl": made("t5xxl-q4_k.gguf", "t5xxl", "q4_k"),
             "--vae": made("ae-f32.safetensors", "ae", "f32")}
    return parts, [(name, made(path, "flux1-dev", kind, *depth)) for name, path, kind in MODELS if args.only in name]


def run(command):
    """Output of both streams, seconds, and the peak of the resident set in GiB."""
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - begin
    if status != 0:
        print(f"{' '.join(command)}\nfailed with status {status}:\n{text[-3000:]}", file=sys.stderr)
        return None
    return text, seconds, usage.ru_maxrss / 2**20


def ours(args, model, parts, out):
    command = [args.vkflux, "sample", "--json", "--model", model, *sum(parts.items(), ()), "--tokenizer_2", args.spiece,
               "--prompt", PROMPT, "--text-length", "256", "--size", f"{args.side}x{args.side}", "--sigmas", LEVELS,
               "--guidance", "3.5", "--seed", "42", "--noise", "mersenne", "--vram", args.vram, "--no-prompt-cache", "--out", out]
    done = run(command)
    if not done:
        return None
    text, seconds, peak = done
    r = json.loads(text[text.index("{\n"):])
    spent = {"encode_s": r["encode_s"], "step_s": r["denoise_s"] / (LEVELS.count(",")), "decode_s": r["decode_s"]}
    return {**spent, "all_s": seconds, "peak_gib": peak}


def theirs(args, model, parts, out):
    command = [args.sd_cli, "--diffusion-model", model, *sum(parts.items(), ()), "-p", PROMPT, "-W", str(args.side), "-H",
               str(args.side), "--steps", str(LEVELS.count(",")), "--sigmas", LEVELS, "--sampling-method", "euler", "--cfg-scale",
               "1", "--guidance", "3.5", "--rng", "cpu", "--seed", "42", "--threads", str(os.cpu_count()), "-v", "-o", out,
               *args.sd_flag]
    done = run(command)
    if not done:
        return None
    text, seconds, peak = done

    def printed(what):
        found = re.search(what + r" completed, taking ([0-9.]+)s", text)
        return float(found.group(1)) if found else math.nan

    return {"encode_s": printed("get_learned_condition"), "step_s": printed("sampling") / LEVELS.count(","),
            "decode_s": printed("decode_first_stage"), "all_s": seconds, "peak_gib": peak,
            "load_s": sum(float(s) for s in re.findall(r"loading tensors completed, taking ([0-9.]+)s", text))}


def psnr(a, b):
    pictures = [np.asarray(Image.open(p).convert("RGB"), np.float64) for p in (a, b)]
    error = np.mean((pictures[0] - pictures[1]) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def best(rounds):
    rounds = [r for r in rounds if r]
    return {key: min(r[key] for r in rounds) for key in rounds[0]} if rounds else None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vkflux", default="build/vkflux")
    p.add_argument("--sd-cli", required=True)
    p.add_argument("--sd-flag", action="append", default=[], help="passed on to sd-cli")
    p.add_argument("--folder", required=True, help="where the weights are kept: about 8 GB")
    p.add_argument("--out")
    p.add_argument("--spiece", default="models/emoji/tokenizer_2",
                   help="a tokenizer for vkflux in place of T5's own: with random weights the tokens mean nothing, but the "
                        "pictures of both programs only agree with the real spiece.model")
    p.add_argument("--side", type=int, default=256)
    p.add_argument("--depth", type=int, default=2)
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--vram", default="12")
    p.add_argument("--only", default="", help="models whose name contains this")
    args = p.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    parts, models = files(args)
    record = {"side": args.side, "depth": args.depth, "levels": LEVELS, "cores": os.cpu_count(), "rows": []}
    for name, model in models:
        out = [os.path.join(args.folder, f"{who}.png") for who in ("vkflux", "sdcpp")]
        mine, other = [], []
        for _ in range(args.rounds):
            mine.append(ours(args, model, parts, out[0]))
            other.append(theirs(args, model, parts, out[1]))
        row = {"model": name, "vkflux": best(mine), "stable-diffusion.cpp": best(other)}
        if row["vkflux"] and row["stable-diffusion.cpp"]:
            row["psnr_db"] = psnr(*out)
        record["rows"].append(row)
        if args.out:
            with open(args.out, "w") as f:
                json.dump(record, f, indent=1)
    print("| model | program | encode s | s a step | decode s | whole run s | peak GiB | PSNR between them |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in record["rows"]:
        for who in ("vkflux", "stable-diffusion.cpp"):
            r = row[who]
            if r:
                shown = " | ".join(f"{r[k]:.2f}" for k in ("encode_s", "step_s", "decode_s", "all_s", "peak_gib"))
                print(f"| {row['model']} | {who} | {shown} | {row.get('psnr_db', math.nan):.1f} dB |")


if __name__ == "__main__":
    main()
