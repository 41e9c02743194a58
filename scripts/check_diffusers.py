#!/usr/bin/env python3
"""Loads a model folder in diffusers, unchanged, and compares tokens and pictures with vkflux's.

    pip install torch diffusers transformers sentencepiece protobuf
    scripts/check_diffusers.py [--model models/emoji] [--program build/vkflux] [--prompt TEXT ...]

Every picture is drawn by both from the same noise, with the folder's own defaults; the largest difference in
8-bit steps is printed, and more than one step fails. --vectors FILE writes what diffusers and transformers
gave, for tests/data.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

PROMPTS = ["red apple", "fox face"]
TEXTS = PROMPTS + [
    "",
    "  Red   APPLE! ",
    "!<|endoftext|>",
    "cat<|startoftext|>dog",
    "a <|endoftext|>  b",
    "it's 'ſ",
    "a \u180e b",
    "日本語 é",
    "a</s>b",
    "<pad> red apple",
    "red <unk> apple",
    "<extra_id_0> red",
    "a very long prompt that no encoder of this size takes in full",
]
WIDTH_OF_STEP = 1  # 8-bit steps that rounding may cost


def defaults_of(folder):
    with open(os.path.join(folder, "model_index.json"), encoding="utf-8") as file:
        ours = json.load(file).get("vkflux", {})
    size = ours.get("size", 1024)
    width, height = size if isinstance(size, list) else (size, size)
    return {
        "width": width,
        "height": height,
        "steps": ours.get("steps", 28),
        "cfg": ours.get("cfg", 1.0),
        "guidance": ours.get("guidance", 3.5),
        "tokens": ours.get("txt_tokens", 512),
    }


def draw(pipe, prompt, seed, d):
    """One picture as uint8 [height, width, 3], with the folder's defaults."""
    picture = pipe(
        prompt,
        negative_prompt="" if d["cfg"] != 1 else None,
        true_cfg_scale=d["cfg"],
        guidance_scale=d["guidance"],
        num_inference_steps=d["steps"],
        width=d["width"],
        height=d["height"],
        max_sequence_length=d["tokens"],
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    return np.asarray(picture.convert("RGB"))


def our_picture(program, folder, prompt, seed):
    with tempfile.TemporaryDirectory() as temporary:
        path = os.path.join(temporary, "picture.png")
        subprocess.run(
            [program, "sample", "--model", folder, "--prompt", prompt, "--seed", str(seed), "--noise", "mersenne", "--out", path],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return np.asarray(Image.open(path).convert("RGB"))


def our_ids(program, folder, texts):
    command = [program, "tokenize", "--json", "--model", folder]
    for text in texts:
        command += ["--prompt", text]
    shown = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [[encoder["encoded"] for encoder in row["encoders"]] for row in shown["prompts"]]


def their_ids(clip, pipe, text, d):
    first = clip(text, padding="max_length", max_length=pipe.tokenizer.model_max_length, truncation=True)
    second = pipe.tokenizer_2(text, padding="max_length", max_length=d["tokens"], truncation=True)
    return [first["input_ids"], second["input_ids"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/emoji")
    parser.add_argument("--program", default="build/vkflux")
    parser.add_argument("--prompt", action="append", help="instead of the script's own (repeatable)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vectors", help="write what diffusers gave to this file, and don't run vkflux")
    args = parser.parse_args()

    import diffusers
    import transformers

    pipe = diffusers.FluxPipeline.from_pretrained(args.model)
    pipe.set_progress_bar_config(disable=True)
    d = defaults_of(args.model)
    prompts = args.prompt or PROMPTS
    texts = args.prompt or TEXTS
    # The pipeline's class cleans texts in another way where the package ftfy isn't installed.
    clip = transformers.CLIPTokenizerFast.from_pretrained(os.path.join(args.model, "tokenizer"))
    ids = [their_ids(clip, pipe, text, d) for text in texts]
    pictures = [draw(pipe, prompt, args.seed, d) for prompt in prompts]
    if args.vectors:
        vectors = {
            "made_by": {"torch": torch.__version__, "diffusers": diffusers.__version__, "transformers": transformers.__version__},
            "seed": args.seed,
            "tokens": [{"text": t, "tokenizer": i[0], "tokenizer_2": i[1]} for t, i in zip(texts, ids)],
            "pictures": [
                {"prompt": p, "width": d["width"], "height": d["height"], "rgb": base64.b64encode(x.tobytes()).decode()}
                for p, x in zip(prompts, pictures)
            ],
        }
        with open(args.vectors, "w", encoding="utf-8") as file:
            file.write(json.dumps(vectors, ensure_ascii=False, indent=1) + "\n")
        return 0

    bad = 0
    for text, theirs, ours in zip(texts, ids, our_ids(args.program, args.model, texts)):
        if ours != theirs:
            bad += 1
            print(f"{text!r}: diffusers' tokens are {theirs}, ours {ours}")
    for prompt, theirs in zip(prompts, pictures):
        ours = our_picture(args.program, args.model, prompt, args.seed)
        steps = int(np.abs(theirs.astype(int) - ours.astype(int)).max()) if ours.shape == theirs.shape else 255
        bad += steps > WIDTH_OF_STEP
        print(f"{prompt!r}: {steps} of 255 steps apart")
    print("all agree" if not bad else f"{bad} differ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
