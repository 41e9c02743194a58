// The trained tokenizers of a small checkpoint.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "model/io/file.h"
#include "train/data/tokenizer_training.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

const std::vector<TrainingText> kTexts{{"red apple", 10},
                                       {"green apple", 10},
                                       {"dog face", 10},
                                       {"cat face", 5},
                                       {"grinning face with big eyes", 3},
                                       {"eyes", 1},
                                       {"apples and dogs", 2}};

class DatasetTokenizers : public ::testing::Test {
 protected:
  DatasetTokenizers()
      : folder_(fs::temp_directory_path() / ("vkflux_tokenizers_" + std::to_string(::getpid()))) {}
  ~DatasetTokenizers() override { fs::remove_all(folder_); }
  fs::path folder_;
};

TEST_F(DatasetTokenizers, ClipBpe) {
  const auto vocabulary = train_clip_bpe(kTexts, 560);
  write_clip_tokenizer(folder_, vocabulary, 16);
  const auto tokenizer = load_clip_tokenizer(folder_.string());
  EXPECT_EQ(static_cast<size_t>(tokenizer->vocab_size()), vocabulary.ids.size());
  EXPECT_LE(tokenizer->vocab_size(), 560);
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->vocab_size() - 1);
  EXPECT_EQ(tokenizer->tokenize("Red  APPLE").size(), 2u);  // the frequent words are one token each
  EXPECT_EQ(tokenizer->tokenize("dog face").size(), 2u);
  EXPECT_EQ(tokenizer->tokenize("q\u00fc").size(), 3u);  // bytes remain
  EXPECT_EQ(vocabulary.merges[0],
            (std::pair<std::string, std::string>{"a", "p"}));  // 22 times, as others; first in order
  EXPECT_EQ(train_clip_bpe(kTexts, 560).ids, vocabulary.ids);
  EXPECT_THROW(train_clip_bpe(kTexts, 514), Error);
}

TEST_F(DatasetTokenizers, T5Unigram) {
  const std::string model = train_t5_unigram(kTexts, 64);
  EXPECT_EQ(train_t5_unigram(kTexts, 64), model);
  write_t5_tokenizer(folder_, model, 12);
  const auto tokenizer = load_t5_tokenizer(folder_.string());
  EXPECT_EQ(tokenizer->pad_id(), 0);
  EXPECT_EQ(tokenizer->eos_id(), 1);
  EXPECT_LE(tokenizer->vocab_size(), 64);
  EXPECT_EQ(tokenizer->tokenize("dog face").size(), 2u);
  EXPECT_EQ(tokenizer->tokenize("</s><unk>"), (std::vector<int32_t>{1, 2}));
  // The ids that other programs read from the trainer's part of the file (fields 40 to 43): unknown 2, start
  // -1, end 1, padding 0.
  const std::string ids(
      "\xc0\x02\x02\xc8\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xd0\x02\x01\xd8\x02\x00", 21);
  EXPECT_NE(model.find(ids), std::string::npos);
  EXPECT_EQ(tokenizer->tokenize("D\u00f4G,  face!"),
            tokenizer->tokenize("dog face"));  // as captions are written
  EXPECT_EQ(tokenizer->tokenize("\u65e5"), (std::vector<int32_t>{tokenizer->tokenize("\u65e5")[0], 2}));
}

TEST_F(DatasetTokenizers, Lengths) {
  write_clip_tokenizer(folder_, train_clip_bpe({{"a", 1}, {"ab", 1}}, 515), 16);
  const auto tokenizer = load_clip_tokenizer(folder_.string());
  const auto lengths = token_lengths(*tokenizer, {"a", "a a", "a a a", "z z z z z z z"});
  EXPECT_EQ(lengths.median, 2u);
  EXPECT_EQ(lengths.max, 7u);
  EXPECT_EQ(token_lengths(*tokenizer, {}).max, 0u);
}

}  // namespace
}  // namespace vkflux
