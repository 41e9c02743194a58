// Makes the emoji data set: Noto Color Emoji's bitmaps with their Unicode names and CLDR keywords, all from
// packages of the distribution. Two runs write the same bytes.
//
// Folder: images/CODEPOINTS.png (straight-alpha RGBA), images/CODEPOINTS.txt (name, then keywords),
// index.json. Splits: "autoencoder" (objects, animals, faces, hands), of it "s775" and "s493" (the better
// known ones, by version), and "unseen" (the rest: people, signs, clocks), which no training set holds.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>

#include "train/data/tokenizer_training.h"

namespace vkflux {

struct EmojiDatasetOptions {
  std::filesystem::path out;
  int size = 64;  // pixels a side
  std::filesystem::path emoji_test = "/usr/share/unicode/emoji/emoji-test.txt";
  std::filesystem::path annotations = "/usr/share/unicode/cldr/common/annotations/en.xml";
  std::filesystem::path font = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf";
  TokenizerSizes tokenizers;
  std::function<void(size_t done, size_t total)> progress;  // may be empty
};

struct EmojiDatasetReport {
  size_t items = 0, autoencoder = 0, s775 = 0, s493 = 0, unseen = 0;
  TokenLengths clip, clip_s493, t5, t5_s493;  // content tokens of the names: of all, and of split s493
};

/// ErrorCode::io names the package to install when a source file is missing.
EmojiDatasetReport write_emoji_dataset(const EmojiDatasetOptions& options);

}  // namespace vkflux
