#!/usr/bin/env python3
"""Makes t5_tokenizer.gguf beside this script: ../tokenizers/t5/spiece.model as GGUF files of T5 encoders carry it.

Made with gguf 0.19.0 and sentencepiece 0.2.3.

Usage: make_tokenizer.py

The keys are those that llama.cpp's converter writes; as there, extra ids follow the model's pieces and unused ones fill the
embedding's rows up.
"""

import pathlib

import gguf
from sentencepiece import SentencePieceProcessor
from sentencepiece import sentencepiece_model_pb2 as proto

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE.parent / "tokenizers" / "t5" / "spiece.model"


def main():
    pieces = SentencePieceProcessor(model_file=str(MODEL))
    model = proto.ModelProto()
    model.ParseFromString(MODEL.read_bytes())
    tokens, scores, types = [], [], []
    for i in range(pieces.vocab_size()):
        tokens.append(pieces.id_to_piece(i).encode())
        scores.append(pieces.get_score(i))
        kind = gguf.TokenType.NORMAL
        if pieces.is_unknown(i):
            kind = gguf.TokenType.UNKNOWN
        elif pieces.is_control(i):
            kind = gguf.TokenType.CONTROL
        elif pieces.is_unused(i):
            kind = gguf.TokenType.UNUSED
        elif pieces.is_byte(i):
            kind = gguf.TokenType.BYTE
        types.append(kind)
    for i in reversed(range(3)):
        tokens.append(f"<extra_id_{i}>".encode())
        scores.append(-1000.0)
        types.append(gguf.TokenType.USER_DEFINED)
    for i in range(5):
        tokens.append(f"[PAD{len(tokens)}]".encode())
        scores.append(-1000.0)
        types.append(gguf.TokenType.UNUSED)
    writer = gguf.GGUFWriter(HERE / "t5_tokenizer.gguf", "t5encoder")
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_add_space_prefix(model.normalizer_spec.add_dummy_prefix)
    writer.add_remove_extra_whitespaces(model.normalizer_spec.remove_extra_whitespaces)
    if model.normalizer_spec.precompiled_charsmap:
        writer.add_precompiled_charsmap(model.normalizer_spec.precompiled_charsmap)
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    writer.add_pad_token_id(pieces.pad_id())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
