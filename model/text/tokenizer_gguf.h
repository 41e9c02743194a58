// T5's unigram model from the metadata of a GGUF file.
#pragma once

#include <memory>
#include <string>

#include "model/io/json.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_spiece.h"

namespace vkflux {

/// Whether the metadata describes a tokenizer of T5's kind (tokenizer.ggml.model is "t5").
bool has_gguf_unigram(const io::Json& values);

/// Error format naming the key when lists are missing, differ in length, or hold what can't be, and what
/// UnigramModel::check() refuses. Unused pieces at the end, with which writers fill the vocabulary up, are
/// left out.
UnigramModel parse_gguf_unigram(const io::Json& values);
std::unique_ptr<Tokenizer> t5_tokenizer_from_gguf(const io::Json& values, const std::string& origin);

}  // namespace vkflux
