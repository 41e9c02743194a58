// Tokenizer files changed at random, and some changed on purpose, give Error format or a tokenizer that
// works.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "model/io/file.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_clip.h"
#include "model/text/tokenizer_t5.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";
const std::string kText = "The caf\u00e9's 10 \uff26\uff55\uff4c\uff4c <|endoftext|> \U0001f600 zz";

std::string mutated(std::string bytes, uint32_t seed) {
  std::mt19937 rng(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(rng()) % n; };
  for (size_t k = 0; k <= below(4) && !bytes.empty(); ++k) {
    switch (below(6)) {
      case 0:
        bytes[below(bytes.size())] = static_cast<char>(rng());
        break;
      case 1:
        bytes[below(bytes.size())] = static_cast<char>(below(2) ? 0xFF : 0);
        break;
      case 2:
        bytes.erase(below(bytes.size()), 1 + below(16));
        break;
      case 3:
        bytes.insert(below(bytes.size()), bytes.substr(below(bytes.size()), below(64)));
        break;
      case 4:
        bytes.resize(below(bytes.size()));
        break;
      default:
        bytes[below(bytes.size())] ^= static_cast<char>(1u << below(8));
    }
  }
  return bytes;
}

/// Runs `load` on many changed copies; counts those refused.
size_t refused(const std::string& original, uint32_t rounds,
               const std::function<void(const std::string&)>& load) {
  size_t count = 0;
  for (uint32_t seed = 0; seed < rounds; ++seed) {
    try {
      load(mutated(original, seed));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::format) << "seed " << seed << ": " << error.what();
      ++count;
    }
  }
  return count;
}

void use(const Tokenizer& tokenizer) {
  const auto ids = tokenizer.encode(kText, 32);
  EXPECT_EQ(ids.size(), 32u);
  for (int32_t id : ids) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, tokenizer.vocab_size());
  }
}

void use_t5(const std::string& bytes) {
  use(*t5_tokenizer_from_bytes(std::as_bytes(std::span(bytes)), "mutated"));
}

TEST(TokenizerHostile, ClipFiles) {
  const std::string vocab = io::read_file(kData + "clip/vocab.json"),
                    merges = io::read_file(kData + "clip/merges.txt"),
                    config = io::read_file(kData + "clip/tokenizer_config.json");
  const auto load = [](const ClipFiles& files) { use(ClipTokenizer(parse_clip_files(files))); };
  EXPECT_GT(refused(vocab, 150, [&](const auto& v) { load({v, merges, config, "", ""}); }), 30u);
  EXPECT_GT(refused(merges, 150, [&](const auto& m) { load({vocab, m, config, "", ""}); }), 30u);
  EXPECT_GT(refused(config, 150, [&](const auto& c) { load({vocab, merges, c, "", ""}); }), 30u);
}

TEST(TokenizerHostile, ClipJson) {
  const std::string json = io::read_file(kData + "clip_json/tokenizer.json");
  EXPECT_GT(refused(json, 200, [](const auto& j) { use(ClipTokenizer(parse_clip_json(j, ""))); }), 50u);
}

TEST(TokenizerHostile, T5Model) {
  EXPECT_GT(refused(io::read_file(kData + "t5/spiece.model"), 3000, use_t5), 600u);
}

TEST(TokenizerHostile, T5Json) {
  EXPECT_GT(refused(io::read_file(kData + "t5_json/tokenizer.json"), 300, use_t5), 80u);
}

/// The character map alone: it is a trie that the library walks without looking at its bounds.
TEST(TokenizerHostile, T5CharacterMap) {
  const UnigramModel model = parse_sentencepiece(io::read_file(kData + "t5/spiece.model"));
  ASSERT_FALSE(model.charsmap.empty());
  std::string every;  // every one- and two-byte character, and some longer ones
  for (int c = 1; c < 0x80; ++c) every.push_back(static_cast<char>(c));
  for (int a = 0xC2; a < 0xE0; ++a) {
    for (int b = 0x80; b < 0xC0; ++b) every += {static_cast<char>(a), static_cast<char>(b)};
  }
  every += kText;
  const size_t count = refused(model.charsmap, 3000, [&](const std::string& map) {
    UnigramModel changed = model;
    changed.charsmap = map;
    T5Tokenizer(changed).tokenize(every);
  });
  EXPECT_GT(count, 600u);
}

TEST(TokenizerHostile, OnPurpose) {
  const std::vector<std::string> vocabularies{"",
                                              "[]",
                                              "{}",
                                              "{\"a\": -1}",
                                              "{\"a\": 1e9}",
                                              "{\"a\": \"b\"}",
                                              "{\"a\": 1, \"b\": 1}",
                                              "{\"a\": 99999999999}",
                                              "{\"<|startoftext|>\": 0}",
                                              std::string(100000, '[')};
  for (const std::string& vocab : vocabularies) {
    EXPECT_THROW(ClipTokenizer(parse_clip_files({vocab, "", "", "", ""})), Error) << vocab.substr(0, 40);
  }
  const std::string good = R"({"a": 0, "b</w>": 1, "<|startoftext|>": 2, "<|endoftext|>": 3})";
  for (const char* merges : {"a", " a", "a ", "a b</w>", "x y z", "zz q"}) {
    EXPECT_THROW(ClipTokenizer(parse_clip_files({good, merges, "", "", ""})), Error) << merges;
  }
  EXPECT_THROW(parse_unigram_json(R"({"model": {"type": "BPE", "vocab": []}})"), Error);
  EXPECT_THROW(parse_unigram_json(R"({"model": {"vocab": [["a", 0]], "unk_id": 7}})"), Error);
  EXPECT_THROW(parse_unigram_json(R"({"model": {"vocab": [["a", 1e300]], "unk_id": 0}})"), Error);
  EXPECT_THROW(parse_unigram_json(R"({"model": {"vocab": [["a", 0], ["a", 0]], "unk_id": 0}})"), Error);
  EXPECT_THROW(T5Tokenizer(parse_unigram_json(R"({"model": {"vocab": [["a", 0]], "unk_id": 0}})")),
               Error);  // no end
}

}  // namespace
}  // namespace vkflux
