#!/usr/bin/env python3
"""Makes blocks.gguf and blocks.safetensors beside this script: every block type of GGUF files with what the
public package `gguf` (0.17 or later; numpy) decodes it to; and encoded.safetensors: values, and the blocks that the
package makes of them, for the types that it can make.

Usage: make_gguf.py [FOLDER]

Blocks hold random bytes, so that every bit of every field counts; their f16 scales are finite and of ordinary size.
"""

import json
import pathlib
import struct
import sys

import gguf
import numpy as np

HALVES = {  # bytes of a block at which an f16 scale stands
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
BLOCKS = 3  # a row


def random_blocks(rng, name, rows):
    kind = gguf.GGMLQuantizationType[name]
    values, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (rows * BLOCKS, size), dtype=np.uint8)
    for at in HALVES[name]:
        scale = (rng.uniform(-2, 2, len(blocks)) * 0.01).astype("<f2")
        blocks[:, at:at + 2] = scale.view(np.uint8).reshape(-1, 2)
    return kind, values, blocks.reshape(rows, -1)


def values_to_encode(rng):
    """Blocks of ordinary values, and what is at the edge of the rules: zeros, one value, equal ones, ties, tiny ones."""
    rows = rng.normal(size=(24, 64)).astype(np.float32) * (10.0 ** rng.uniform(-4, 2, (24, 1))).astype(np.float32)
    odd = np.zeros((8, 64), np.float32)
    odd[1, 5] = -3.25
    odd[2] = 0.75
    odd[3] = np.arange(64) - 31.5
    odd[4] = np.abs(rng.normal(size=64)) + 2
    odd[5] = -odd[4]
    odd[6] = 1e-7 * rng.normal(size=64)
    odd[7] = np.tile([1, -1, 0.5, -0.5], 16)
    return np.concatenate([rows, odd])


def save_safetensors(path, tensors):
    header, data = {}, b""
    for name in sorted(tensors):
        kind, dtype = ("<u1", "U8") if tensors[name].dtype == np.uint8 else ("<f4", "F32")
        raw = np.ascontiguousarray(tensors[name], kind).tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensors[name].shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else __file__).resolve()
    folder = folder if folder.is_dir() else folder.parent
    rng = np.random.default_rng(11)
    writer = gguf.GGUFWriter(folder / "blocks.gguf", "flux")
    writer.add_uint32("test.number", 7)
    writer.add_float32("test.half", 0.5)
    writer.add_bool("test.yes", True)
    writer.add_array("test.words", ["one", "two", "\u6f22"])
    writer.add_array("test.scores", [0.25, -1.5])
    want = {}
    for name in HALVES:
        kind, values, blocks = random_blocks(rng, name, rows=2)
        writer.add_tensor(name, blocks, raw_dtype=kind)
        want[name] = gguf.quants.dequantize(blocks, kind)
    plain = rng.normal(size=(3, 5)).astype(np.float32)
    writer.add_tensor("F32", plain)
    writer.add_tensor("F16", plain.astype(np.float16))
    writer.add_tensor("reshaped", plain.reshape(15))
    writer.add_array("comfy.gguf.orig_shape.reshaped", [5, 3])
    want["F32"], want["F16"], want["reshaped"] = plain, plain.astype(np.float16).astype(np.float32), plain.reshape(5, 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_safetensors(folder / "blocks.safetensors", want)

    values = values_to_encode(np.random.default_rng(12))
    encoded = {"values": values}
    for name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        encoded[name] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
    save_safetensors(folder / "encoded.safetensors", encoded)


main()
