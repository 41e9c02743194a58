#!/usr/bin/env python3
"""Makes references.json beside this script: what diffusers' Flux2KleinPipeline makes of reference pictures.

Made with torch 2.15.0, diffusers 0.42.1 and Pillow 13.0.0. The pipeline itself runs, with tiny weights, up to
where it would encode the pictures.

Usage: make_reference_vectors.py

The pictures follow from their size: red (7 x + 3 y) mod 256, green (x y) mod 251, blue 255 where x + y is odd in
the lower half, else (x x + 5 y) / 16 mod 256. Of each case: "unit" is the side of a token in pixels, "in" the sizes, "out" the
sizes after preparation, "crc" the CRC-32 of their bytes (R, G, B in rows), "drawn" the size of the drawn picture when none
is asked for, "t" the first position of each picture's tokens; "error" where the pipeline refuses.
"""

import json
import pathlib
import zlib

import numpy as np
import torch
from diffusers import (AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline, Flux2Transformer2DModel)
from PIL import Image


class Enough(Exception):
    pass


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    blue = np.where(((x + y) % 2 == 1) & (y >= height // 2), 255, (x * x + 5 * y) // 16 % 256)
    return Image.fromarray(np.stack([(7 * x + 3 * y) % 256, x * y % 251, blue], -1).astype(np.uint8))


def pipeline(levels):
    vae = AutoencoderKLFlux2(block_out_channels=(4,) * levels, layers_per_block=1, latent_channels=2, norm_num_groups=2,
                             down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels)
    transformer = Flux2Transformer2DModel(in_channels=8, num_layers=1, num_single_layers=1, attention_head_dim=8,
                                          num_attention_heads=1, joint_attention_dim=8, axes_dims_rope=(2, 2, 2, 2))
    return Flux2KleinPipeline(FlowMatchEulerDiscreteScheduler(), vae, None, None, transformer)


def run(pipe, sizes):
    seen = {}

    def drawn(*args, height=None, width=None, **kwargs):
        seen["drawn"] = [width, height]
        return torch.zeros(1, 4, 8), torch.zeros(1, 4, 4)

    def given(images, **kwargs):
        seen["images"] = images
        raise Enough

    pipe.prepare_latents, pipe.prepare_image_latents = drawn, given
    try:
        pipe(image=[picture(*s) for s in sizes], prompt_embeds=torch.zeros(1, 4, 8), negative_prompt_embeds=torch.zeros(1, 4, 8),
             num_inference_steps=1)
    except Enough:
        pass
    except ValueError as error:
        return {"error": str(error)}
    out, crc = [], []
    for image in seen["images"]:
        pixels = ((image[0].permute(1, 2, 0) + 1) * 127.5).round().numpy().astype(np.uint8)
        out.append([pixels.shape[1], pixels.shape[0]])
        crc.append(zlib.crc32(pixels.tobytes()))
    ids = Flux2KleinPipeline._prepare_image_ids([torch.zeros(1, 1, 1, 1) for _ in sizes])
    return {"out": out, "crc": crc, "drawn": seen["drawn"], "t": ids[0, :, 0].int().tolist()}


def main():
    cases = []
    for unit, lists in [
        (16, [[[64, 64]], [[79, 95]], [[100, 700]], [[1024, 1024]], [[1025, 1024]], [[1100, 1000], [333, 222]], [[3000, 377]],
              [[640, 80], [80, 640], [65, 64]], [[63, 64]], [[64, 63]], [[64, 513]], [[64, 512]], [[521, 65]],
              [[200, 200], [10, 10]]]),
        (4, [[[67, 65]], [[1031, 1021], [70, 71]]]),
        (64, [[[64, 127]]])]:
        pipe = pipeline({16: 4, 4: 2, 64: 6}[unit])
        for sizes in lists:
            cases.append({"unit": unit, "in": sizes} | run(pipe, sizes))
    text = ",\n".join(" " + json.dumps(case) for case in cases)
    pathlib.Path(__file__).resolve().with_name("references.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
