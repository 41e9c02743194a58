// What of a text an encoder doesn't read.
#include "model/text/cut.h"

#include <gtest/gtest.h>

namespace vkflux {
namespace {

const std::string kTokenizers = std::string(VKFLUX_SOURCE_DIR) + "/models/emoji/";

TEST(TextCut, NamesTheWordsThatAreLost) {
  const auto clip = load_clip_tokenizer(kTokenizers + "tokenizer");
  const auto t5 = load_t5_tokenizer(kTokenizers + "tokenizer_2");
  const std::vector<std::string> texts{"red apple", "", "red apple green apple red heart blue heart",
                                       "red apple green apple red heart"};
  std::vector<TextCut> cuts;
  find_cuts("CLIP", *clip, clip->room(8), texts, cuts);  // start and end leave room for six
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_EQ(cuts[0].text, 2u);
  EXPECT_EQ(cuts[0].encoder, "CLIP");
  EXPECT_EQ(cuts[0].tokens, 8u);
  EXPECT_EQ(cuts[0].room, 6u);
  EXPECT_EQ(cuts[0].lost, "blue heart");
  find_cuts("T5", *t5, t5->room(6), texts, cuts);  // the end leaves room for five
  ASSERT_EQ(cuts.size(), 3u);
  EXPECT_EQ(cuts[1].lost, "heart blue heart");
  EXPECT_EQ(cuts[2].text, 3u);
  EXPECT_EQ(cuts[2].room, 5u);
  EXPECT_EQ(cuts[2].lost, "heart");
}

TEST(TextCut, WithoutSpacesItIsCutBetweenCharacters) {
  const auto clip = load_clip_tokenizer(kTokenizers + "tokenizer");
  std::string text;
  for (int i = 0; i < 9; ++i) text += "\u4E2D";  // three bytes each, which are the tokens
  std::vector<TextCut> cuts;
  find_cuts("CLIP", *clip, clip->room(8), {text}, cuts);
  ASSERT_EQ(cuts.size(), 1u);
  EXPECT_GT(cuts[0].tokens, 6u);
  EXPECT_FALSE(cuts[0].lost.empty());
  EXPECT_EQ(cuts[0].lost.size() % 3, 0u);
  EXPECT_TRUE(text.ends_with(cuts[0].lost));
  EXPECT_LT(cuts[0].lost.size(), text.size());
}

}  // namespace
}  // namespace vkflux
