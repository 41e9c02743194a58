// Ids against those of the public tokenizer libraries, on small tokenizers made by tests/data/tokenizers.
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/text/tokenizer.h"
#include "model/text/tokenizer_clip.h"
#include "tests/harness/temp_folder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";

std::vector<std::pair<std::string, std::vector<int32_t>>> vectors(const std::string& kind) {
  std::vector<std::pair<std::string, std::vector<int32_t>>> out;
  const auto all = io::read_json(kData + "vectors.json");
  for (const auto& row : all.at(kind)) {
    out.emplace_back(row.at(0).get<std::string>(), row.at(1).get<std::vector<int32_t>>());
  }
  return out;
}

class TokenizerVectors : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerVectors, Clip) {
  const auto tokenizer = load_clip_tokenizer(kData + "clip" + GetParam());
  for (const auto& [text, ids] : vectors("clip")) {
    EXPECT_EQ(tokenizer->encode(text, static_cast<int>(ids.size())), ids) << text;
    auto content = tokenizer->tokenize(text);
    EXPECT_EQ(content, std::vector<int32_t>(ids.begin() + 1, ids.end() - 1)) << text;
  }
}

TEST_P(TokenizerVectors, T5) {
  const auto tokenizer = load_t5_tokenizer(kData + "t5" + GetParam());
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  for (const auto& [text, ids] : vectors("t5")) {
    EXPECT_EQ(tokenizer->encode(text, static_cast<int>(ids.size())), ids) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, TokenizerVectors, ::testing::Values("", "_json"));

TEST(TokenizerPadding, Clip) {
  const auto tokenizer = load_clip_tokenizer(kData + "clip");
  const auto content = tokenizer->tokenize("a photo of a cat");
  const int32_t start = tokenizer->encode("", 2)[0], end = tokenizer->eos_id();
  EXPECT_EQ(tokenizer->encode("", 4), (std::vector<int32_t>{start, end, end, end}));
  EXPECT_EQ(tokenizer->encode("a photo of a cat", 4),
            (std::vector<int32_t>{start, content[0], content[1], end}));
  const auto full = tokenizer->encode("a photo of a cat", 77);
  EXPECT_EQ(full.size(), 77u);
  EXPECT_EQ(full[1 + content.size()], end);
  EXPECT_EQ(full.back(), tokenizer->pad_id());
  EXPECT_THROW(tokenizer->encode("x", 1), Error);
  // Special tokens in any case, as the original tokenizer takes them.
  EXPECT_EQ(tokenizer->tokenize("<|EndOfText|>"), std::vector<int32_t>{end});
}

TEST(TokenizerPadding, T5) {
  const auto tokenizer = load_t5_tokenizer(kData + "t5");
  const auto content = tokenizer->tokenize("the red apple");
  ASSERT_GE(content.size(), 2u);
  EXPECT_EQ(tokenizer->encode("", 3), (std::vector<int32_t>{1, 0, 0}));
  EXPECT_EQ(tokenizer->encode("the red apple", 2), (std::vector<int32_t>{content[0], 1}));
  EXPECT_EQ(tokenizer->encode("the red apple", 1), (std::vector<int32_t>{1}));
  EXPECT_THROW(tokenizer->encode("x", 0), Error);
}

TEST(TokenizerPadding, T5sConfigAddsTokens) {
  const test::TempFolder folder;
  std::filesystem::copy(kData + "t5/spiece.model", folder.file("spiece.model"));
  const auto with = [&](const std::string& config) {
    io::atomic_write(folder.file("tokenizer_config.json"), config);
    return load_t5_tokenizer(folder.path());
  };
  const int32_t pieces = load_t5_tokenizer(kData + "t5")->vocab_size();
  // The highest id is <extra_id_0>, as transformers counts.
  const auto counted = with(R"({"extra_ids": 100})");
  EXPECT_EQ(counted->vocab_size(), pieces + 100);
  EXPECT_EQ(counted->tokenize("<extra_id_0><extra_id_99>"), (std::vector<int32_t>{pieces + 99, pieces}));
  EXPECT_EQ(counted->piece(pieces + 99), "<extra_id_0>");
  EXPECT_EQ(counted->piece(1), "</s>");
  EXPECT_EQ(counted->piece(9999), "");
  const auto listed = with(R"({"extra_ids": 0, "added_tokens_decoder": {"80": {"content": "[X]"}}})");
  EXPECT_EQ(listed->tokenize("[X]"), std::vector<int32_t>{80});
  EXPECT_GT(with(R"({"extra_ids": 0})")->tokenize("<extra_id_0>").size(), 1u);
  EXPECT_THROW(with(R"({"extra_ids": -1})"), Error);
  EXPECT_THROW(with(R"({"added_tokens_decoder": {"x": {"content": "[X]"}}})"), Error);
}

TEST(TokenizerPadding, TheFilesNameTheSpecialTokens) {
  ClipFiles files{R"({"a</w>": 0, "b": 1, "<pad>": 2})", "",
                  R"({"bos_token": {"content": "[S]"}, "eos_token": "[E]"})", R"({"pad_token": "<pad>"})",
                  R"({"[S]": 3, "[E]": 4})"};
  const ClipTokenizer tokenizer(parse_clip_files(files));
  EXPECT_EQ(tokenizer.vocab_size(), 5);
  EXPECT_EQ(tokenizer.encode("a [e] z", 7),
            (std::vector<int32_t>{3, 0, 4, 4, 4, 2, 2}));  // z is unknown: the end token
}

TEST(TokenizerText, BadTextIsAnError) {
  for (const auto& tokenizer : {load_clip_tokenizer(kData + "clip"), load_t5_tokenizer(kData + "t5")}) {
    for (const std::string& text : {std::string("a\xFFz"), std::string("\xED\xA0\x80"),
                                    std::string(Tokenizer::kMaxTextBytes + 1, 'a')}) {
      try {
        tokenizer->tokenize(text);
        ADD_FAILURE();
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      }
    }
    EXPECT_FALSE(tokenizer->tokenize(std::string("a\0b", 3)).empty());
    EXPECT_FALSE(tokenizer->tokenize(std::string(Tokenizer::kMaxTextBytes, 'a')).empty());  // in good time
  }
}

TEST(TokenizerBpe, AllOccurrencesOfTheLowestRankGoFirst) {
  BpeMerges merges;
  merges.add(1, 2, 12);
  merges.add(12, 1, 121);
  merges.add(3, 3, 33);
  merges.add(1, 2, 99);  // repeated: the first stays
  EXPECT_EQ(merges.apply({1, 2, 1, 2, 1}), (std::vector<uint32_t>{12, 121}));
  EXPECT_EQ(merges.apply({3, 3, 3}), (std::vector<uint32_t>{33, 3}));
  EXPECT_EQ(merges.apply({3, 3, 3, 3}), (std::vector<uint32_t>{33, 33}));
  EXPECT_EQ(merges.apply({5}), (std::vector<uint32_t>{5}));
  EXPECT_TRUE(merges.apply({}).empty());
}

TEST(TokenizerBpe, ByteAlphabetIsABijection) {
  std::set<std::string> seen(byte_alphabet().begin(), byte_alphabet().end());
  EXPECT_EQ(seen.size(), 256u);
  EXPECT_EQ(byte_alphabet()['!'], "!");
  EXPECT_EQ(byte_alphabet()[0], "\u0100");
  EXPECT_EQ(byte_alphabet()[' '], "\u0120");
  EXPECT_EQ(byte_alphabet()[173], "\u0143");
  EXPECT_EQ(byte_order()[0], '!');
  EXPECT_EQ(byte_order()[188], 0);
}

TEST(TokenizerFiles, MissingFilesAreIoErrors) {
  for (const auto load : {load_clip_tokenizer, load_t5_tokenizer}) {
    for (const std::string& path : {kData + "nowhere", std::string(VKFLUX_SOURCE_DIR) + "/tests"}) {
      try {
        load(path);
        ADD_FAILURE() << path;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::io) << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace vkflux
