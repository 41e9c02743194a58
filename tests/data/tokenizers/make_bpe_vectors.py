#!/usr/bin/env python3
"""Makes small byte-level BPE tokenizers, ids of awkward strings, and prompts as diffusers encodes them.

Versions: transformers 5.24.0, tokenizers 0.23.3, mistral-common 1.13.1, diffusers 0.42.1, torch 2.15.0, gguf 0.19.0.

qwen/tokenizer.json (and what lies beside it), qwen_files/ (vocab.json, merges.txt), tekken/tekken.json, tekken_hf/
(the same as transformers converts it), bpe_vectors.json.gz: {"qwen": [[text, ids]..], "tekken": ids with special
tokens parsed, "tekken_plain": as mistral-common's own code gives them, without}; qwen.gguf, tekken.gguf;
prompts_qwen3.safetensors and prompts_mistral.safetensors: a tiny text encoder each, three prompts' ids and masks at
two lengths, and the embeddings that diffusers' pipelines make of them.
"""

import base64
import gzip
import json
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))

import gguf  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from awkward_strings import PROMPTS, WORDS, strings  # noqa: E402
from diffusers import Flux2KleinPipeline, Flux2Pipeline  # noqa: E402
from make_chat_vectors import TEMPLATES  # noqa: E402
from mistral_common.tokens.tokenizers.tekken import Tekkenizer  # noqa: E402
from pathlib import Path  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402
from transformers.integrations.mistral.tokenizer import MistralConverter  # noqa: E402
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX  # noqa: E402

QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
TEKKEN_SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
TEKKEN_PATTERN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
                  r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
                  r"\s*[\r\n]+|\s+(?!\S)|\s+")
PICKED = ["a red fox", "line\n\nbreaks  and [IMG] <|im_end|> [/INST] \u212b e\u0301", ""]


def trained(pattern, size):
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    corpus = PROMPTS + WORDS * 3 + [" ".join(WORDS[i:] + WORDS[:i]) for i in range(0, len(WORDS), 7)] + ["    \n\n \r\n"] * 9
    corpus += ["structured responses focusing on object relationships You are an AI that reasons about image descriptions system user assistant"] * 4
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                      show_progress=False))
    return t


def alphabet():
    from transformers.convert_slow_tokenizer import bytes_to_unicode
    return {c: b for b, c in bytes_to_unicode().items()}


def folder(name):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path


def make_qwen():
    model = json.loads(trained(PRETOKENIZE_REGEX, 700).to_str())["model"]
    files = folder("qwen_files")
    # As public vocabularies: bytes in the order of their alphabet, then merges.
    vocab = {t: i for i, t in enumerate(sorted(model["vocab"], key=model["vocab"].get))}
    added = {str(len(vocab) + i): {"content": t, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
                                   "special": "think" not in t} for i, t in enumerate(QWEN_SPECIAL)}
    with open(os.path.join(files, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump(vocab, f, ensure_ascii=False, separators=(",", ":"))
    with open(os.path.join(files, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"]))
    with open(os.path.join(files, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>",
                   "pad_token": "<|endoftext|>", "model_max_length": 131072}, f)
    t = transformers.Qwen2TokenizerFast.from_pretrained(files)
    t.chat_template = TEMPLATES[1]
    path = folder("qwen")
    t.save_pretrained(path)
    writer = gguf.GGUFWriter(os.path.join(HERE, "qwen.gguf"), "qwen3")
    tokens = sorted(vocab, key=vocab.get) + QWEN_SPECIAL + ["[PAD]"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(vocab) + [3, 3, 3, 4, 4, 5])
    writer.add_token_merges([f"{a} {b}" for a, b in model["merges"]])
    writer.add_eos_token_id(len(vocab) + 2)
    writer.add_pad_token_id(len(vocab))
    write(writer)
    return t


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_tekken():
    path = folder("tekken")
    model = json.loads(trained(TEKKEN_PATTERN, 700).to_str())["model"]
    letters = alphabet()
    rows = [bytes([b]) for b in range(256)]
    rows += [b for b in (bytes(letters[c] for c in t) for t in sorted(model["vocab"], key=model["vocab"].get)) if len(b) > 1]
    special = [{"rank": i, "token_str": t, "is_control": True} for i, t in enumerate(TEKKEN_SPECIAL)]
    count = len(TEKKEN_SPECIAL) + 3
    data = {"config": {"pattern": TEKKEN_PATTERN, "num_vocab_tokens": len(rows), "default_vocab_size": count + len(rows) - 20,
                       "default_num_special_tokens": count, "version": "v7"},
            "vocab": [{"rank": i, "token_bytes": base64.b64encode(b).decode(), "token_str": None} for i, b in enumerate(rows)],
            "special_tokens": special, "type": "Tekken", "version": 1}
    file = os.path.join(path, "tekken.json")
    with open(file, "w") as f:
        json.dump(data, f, separators=(",", ":"))
    own = Tekkenizer.from_file(Path(file))
    hf = transformers.PreTrainedTokenizerFast(tokenizer_object=MistralConverter(file).converted(), bos_token="<s>", eos_token="</s>",
                                              pad_token="<pad>", unk_token="<unk>", padding_side="left")
    hf.chat_template = TEMPLATES[2]
    target = folder("tekken_hf")
    hf.save_pretrained(target)
    writer = gguf.GGUFWriter(os.path.join(HERE, "tekken.gguf"), "llama")
    back = {b: c for c, b in letters.items()}
    tokens = TEKKEN_SPECIAL + [f"<SPECIAL_{i}>" for i in range(len(TEKKEN_SPECIAL), count)]
    tokens += ["".join(back[b] for b in t) for t in rows[:len(rows) - 20]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("tekken")
    writer.add_token_list(tokens)
    writer.add_token_types([2] + [3] * (count - 1) + [1] * (len(rows) - 20))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    write(writer)
    return own, hf


def randomized(model, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            v = torch.randn(p.shape, generator=g)
            p.copy_(1 + 0.2 * v if p.dim() < 2 else v * (1 if "embed" in name else 1.5 / p[0].numel() ** 0.5))
    return model.eval()


def save_prompts(name, model, tokenizer, weights, encode, ids_of):
    tensors = {"w." + k: v for k, v in weights.items()}
    for length in (48, 160):
        ids, mask = zip(*(ids_of(p, length) for p in PICKED))
        tensors[f"out.{length}.ids"] = torch.tensor(ids, dtype=torch.int32)
        tensors[f"out.{length}.mask"] = torch.tensor(mask, dtype=torch.int32)
        with torch.no_grad():
            whole = encode(model, tokenizer, PICKED, length)
        # The rows of 160 in part: it is the padding that differs.
        tensors[f"out.{length}.txt"] = whole if length == 48 else whole[:, ::13]
    save_file({k: v.contiguous() for k, v in tensors.items()}, os.path.join(HERE, name),
              {"config": model.config.to_json_string(use_diff=True)})
    os.chmod(os.path.join(HERE, name), 0o644)
    print(name, os.path.getsize(os.path.join(HERE, name)))


def main():
    qwen = make_qwen()
    own, hf = make_tekken()
    listed = {"qwen": [], "tekken": [], "tekken_plain": []}
    for text in strings(QWEN_SPECIAL + TEKKEN_SPECIAL, 2400):
        if len(text) > 120:
            text = text[:90]
        listed["qwen"].append([text, qwen(text, add_special_tokens=False)["input_ids"]])
        listed["tekken"].append(hf(text, add_special_tokens=False)["input_ids"])
        listed["tekken_plain"].append(own.encode(text, False, False))
    with open(os.path.join(HERE, "bpe_vectors.json.gz"), "wb") as f:
        f.write(gzip.compress(json.dumps(listed, separators=(",", ":")).encode(), 9, mtime=0))
    small = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=4)
    m = randomized(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(vocab_size=len(qwen), rope_parameters={"rope_theta": 1e6, "rope_type": "default"}, **small)), 1)

    def klein_ids(prompt, length):
        text = qwen.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False)
        t = qwen(text, padding="max_length", truncation=True, max_length=length)
        return t["input_ids"], t["attention_mask"]

    save_prompts("prompts_qwen3.safetensors", m, qwen, {k: v for k, v in m.state_dict().items() if "lm_head" not in k},
                 lambda m, t, p, n: Flux2KleinPipeline._get_qwen3_prompt_embeds(m, t, p, max_sequence_length=n, hidden_states_layers=(1, 3)), klein_ids)
    c = transformers.Mistral3Config(
        text_config=dict(model_type="mistral", vocab_size=len(hf), sliding_window=None, rope_parameters={"rope_theta": 1e9, "rope_type": "default"}, rms_norm_eps=1e-5, **small),
        vision_config=dict(model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4))
    m = randomized(transformers.Mistral3ForConditionalGeneration(c), 2)
    saved = os.path.join(HERE, "saved")
    m.save_pretrained(saved)
    from safetensors.torch import load_file
    weights = load_file(os.path.join(saved, "model.safetensors"))
    shutil.rmtree(saved)

    def dev_ids(prompt, length):
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input
        t = hf.apply_chat_template(format_input([prompt]), add_generation_prompt=False, tokenize=True, return_dict=True, padding="max_length", truncation=True, max_length=length)
        return t["input_ids"][0], t["attention_mask"][0]

    save_prompts("prompts_mistral.safetensors", m, hf, weights,
                 lambda m, t, p, n: Flux2Pipeline._get_mistral_3_small_prompt_embeds(m, t, p, max_sequence_length=n, hidden_states_layers=(1, 2, 3)), dev_ids)


if __name__ == "__main__":
    main()
