// The tokenizer of small FLUX.2 models: trained, written and read back.
#include "train/data/chat_tokenizer_training.h"

#include <gtest/gtest.h>

#include "model/text/prompt_encoder.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const std::vector<TrainingText> kTexts{{"red apple", 3},
                                       {"green apple on a table", 2},
                                       {"blue heart", 5},
                                       {"smiling face with heart-eyes", 4},
                                       {"caf\u00e9 12:30", 1}};

TEST(ChatTokenizerTraining, WordsAndTheTemplateAreTokens) {
  const ByteBpeModel model = train_chat_bpe(kTexts, 420);
  const ByteBpe bpe(model);
  EXPECT_LE(bpe.vocab_size(), 420);
  EXPECT_EQ(bpe.ids("<|im_start|>user\n").size(), 3u);
  EXPECT_EQ(bpe.ids("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n").size(), 9u);
  EXPECT_EQ(bpe.ids("blue heart").size(), 2u);
  EXPECT_EQ(bpe.ids("red apple").size(), 2u);
  EXPECT_EQ(train_chat_bpe(kTexts, 420).merges, model.merges);
  EXPECT_EQ(train_chat_bpe({}, 5000).tokens.size(), 256 + 3 + 8 + 1);  // user, assistant and two line feeds
  test::expect_error(ErrorCode::invalid_argument, {"299"}, [] { train_chat_bpe(kTexts, 299); });
}

TEST(ChatTokenizerTraining, TheFilesHoldAllOfIt) {
  const test::TempFolder temporary;
  const std::string folder = temporary.path();
  const ByteBpeModel model = train_chat_bpe(kTexts, 420);
  const auto bpe = std::make_shared<const ByteBpe>(model);
  write_chat_tokenizer(folder, model, 512);
  const auto whole = load_byte_bpe(folder), files = load_byte_bpe(folder + "/vocab.json");
  for (const std::string text :
       {"a red apple<|im_end|>", "caf\u00e9 \u4e2d\n\n  x", "cafe\u0301 HEART", ""}) {
    EXPECT_EQ(whole->ids(text), bpe->ids(text)) << text;
    EXPECT_EQ(files->ids(text), bpe->ids(text)) << text;
  }
  EXPECT_EQ(whole->model().pad, "<|endoftext|>");
  EXPECT_EQ(whole->model().pad_left, false);
  // The template that is written is the published model's for one prompt.
  ByteBpeModel bare = model;
  bare.chat_template.clear();
  const ChatTokenizer written(whole, PromptKind::qwen3),
      published(std::make_shared<const ByteBpe>(bare), PromptKind::qwen3);
  for (const std::string prompt : {"a blue heart", "", "\n x <think>"})
    EXPECT_EQ(written.encode(prompt, 40), published.encode(prompt, 40)) << prompt;
}

}  // namespace
}  // namespace vkflux
