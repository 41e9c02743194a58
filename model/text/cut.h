// Texts that are longer than an encoder reads.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "model/text/tokenizer.h"

namespace vkflux {

struct TextCut {
  size_t text = 0;              // its number among those that were asked about
  std::string encoder;          // "CLIP", "T5"
  size_t tokens = 0, room = 0;  // content tokens of the text, and how many of them are read
  std::string lost;             // the end that isn't read, from a word's begin where it has several words
};

/// Appends an entry for each text of more content than `room` tokens. Errors of tokenize().
void find_cuts(const std::string& encoder, const Tokenizer& tokenizer, size_t room,
               const std::vector<std::string>& texts, std::vector<TextCut>& cuts);

}  // namespace vkflux
