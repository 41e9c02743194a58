#!/usr/bin/env python3
"""Makes the small tokenizers beside this script and the ids that the public libraries give with them.

    python3 -m venv venv && venv/bin/pip install tokenizers==0.23.3 sentencepiece==0.2.3 transformers==5.23.0
    venv/bin/python make_tokenizer_vectors.py

clip/            vocab.json, merges.txt, tokenizer_config.json: byte-level BPE with CLIP's pipeline
clip_json/       the same as tokenizer.json
t5/              spiece.model with a small character map
t5_json/         the same as tokenizer.json
vectors.json     {"clip": [[text, ids], ...], "t5": [[text, ids], ...]}, ids without padding
"""
import base64
import io
import json
import pathlib
import tempfile

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as model_pb
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPTokenizer

HERE = pathlib.Path(__file__).parent

CORPUS = [
    "a photo of a cat", "a photo of the dog", "a red apple on a wooden table", "the blue car drives past the house",
    "an oil painting of mountains at sunset", "two cats and three dogs", "the dog's ball isn't here", "we're they've I'll",
    "a café in a small town", "an emoji of a grinning face", "photographs of photographers", "high resolution, detailed",
    "wooden houses, wooden cars", "the grinning cat", "10 red apples", "a town on a mountain", "sunsets and sunrises",
]

TEXTS = [
    "", " ", "a photo of a cat", "A PHOTO  of\ta\n\ncat ", "dog's isn't we're THEY'VE i'll", "apples, apples... (apples)!",
    "10 cars in 2024", "caf\u00e9 cafe\u0301", "\u00c4PFEL \u00dcber stra\u00dfe", "\u65e5\u672c\u8a9e\u306e\u30c6\u30b9\u30c8", "smile \U0001f600 now \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "<|startoftext|>cat<|endoftext|> dog", "\u0130stanbul \u03a3\u039f\u03a6\u039f\u03a3", "x" * 300, "tab\u00a0nbsp\u3000wide\u2003em",
    "it's 'quoted' ''s", "a-b_c+d=e", "\uff26\uff55\uff4c\uff4c \ufb01ne", "photophotographs", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u00bd \u2163 \u0664\u0662", "\u2581house \u2581", "<unk> </s> <pad>x", "zzqq",
    " ".join(["the wooden house"] * 12), "\u1fb3 \u01c5 \u1e9e", "a\u0301\u0323 q\u0307",
    "!<|endoftext|>", "cat<|startoftext|>dog", "a <|endoftext|>  b", "x<|endoftext|><|endoftext|>y", "<|endoftext|>'s",
    "it's '\u017f 'S", "a \u180e b", "\u212a", "a\u200bb", "a</s>b", "<pad> x", "red <unk> apple", "a </s> b", "</s>",
]

SPECIAL = ("<pad>", "</s>", "<unk>")  # of T5, cut out of a text before SentencePiece sees it

# Full-width letters, ligatures, an accent pair and a few spaces, in SentencePiece's rule form.
RULES = [(0xFF21 + i, [0x41 + i]) for i in range(26)] + [(0xFF41 + i, [0x61 + i]) for i in range(26)]
RULES += [(0xFB01, [0x66, 0x69]), (0x00BD, [0x31, 0x2F, 0x32]), (0x3000, [0x20]), (0x00A0, [0x20]), (0x2003, [0x20]),
          (0x0009, [0x20]), (0x000A, [0x20]), (0x2163, [0x49, 0x56]), (0x200D, [])]


def make_clip():
    tok = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tok.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    # Two byte symbols are missing, with and without the suffix, so that unknown bytes occur.
    alphabet = [c for c in sorted(pre_tokenizers.ByteLevel.alphabet()) if c not in "\u00d8\u00b8"]
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, end_of_word_suffix="</w>",
                                  show_progress=False, min_frequency=2)
    tok.train_from_iterator(CORPUS, trainer)
    raw = json.loads(tok.to_str())
    vocab = dict(raw["model"]["vocab"])
    for c in alphabet:
        vocab.setdefault(c + "</w>", len(vocab))
    vocab = {k: i for i, k in enumerate(sorted(vocab, key=vocab.get))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in raw["model"]["merges"]]
    folder = HERE / "clip"
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    config = {"bos_token": {"content": "<|startoftext|>", "__type": "AddedToken"}, "eos_token": "<|endoftext|>",
              "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    clip = CLIPTokenizer(vocab=vocab, merges=merges)
    other = HERE / "clip_json"
    other.mkdir(exist_ok=True)
    clip.backend_tokenizer.save(str(other / "tokenizer.json"), pretty=False)
    return [[t, clip(t)["input_ids"]] for t in TEXTS]


def make_t5():
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        for source, target in RULES:
            rules.write(f"{source:X}\t{' '.join(f'{c:X}' for c in target)}\n")
        rules.flush()
        out = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 3), model_writer=out, vocab_size=180, hard_vocab_limit=False,
            model_type="unigram", character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, num_threads=1,
            normalization_rule_tsv=rules.name, minloglevel=2)
    proto = model_pb.ModelProto.FromString(out.getvalue())
    proto.trainer_spec.ClearField("input")
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    folder = HERE / "t5"
    folder.mkdir(exist_ok=True)
    (folder / "spiece.model").write_bytes(proto.SerializeToString())
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))

    charsmap = proto.normalizer_spec.precompiled_charsmap
    tok = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=2, byte_fallback=False))
    tok.normalizer = normalizers.Precompiled(charsmap)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tok.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>",
                                                       special_tokens=[("</s>", 1)])
    saved = json.loads(tok.to_str())
    saved["added_tokens"] = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for i, c in enumerate(SPECIAL)]
    other = HERE / "t5_json"
    other.mkdir(exist_ok=True)
    (other / "tokenizer.json").write_text(json.dumps(saved, ensure_ascii=False))
    whole = Tokenizer.from_str(json.dumps(saved))
    vectors = []
    for text in TEXTS:
        if any(token in text for token in SPECIAL):
            vectors.append([text, whole.encode(text).ids])
            continue
        ids = spm.encode(text) + [1]
        fast = tok.encode(text).ids
        if ids != fast:  # the two libraries differ in a few odd texts; SentencePiece is T5's own
            print("differ:", repr(text[:40]), ids[:20], fast[:20])
        vectors.append([text, ids])
    return vectors


if __name__ == "__main__":
    result = {"clip": make_clip(), "t5": make_t5()}
    lines = [f'"{k}": [\n' + ",\n".join(json.dumps(v) for v in rows) + "\n]" for k, rows in result.items()]
    (HERE / "vectors.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
