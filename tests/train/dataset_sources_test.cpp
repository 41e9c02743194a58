// The parsers behind the emoji data set: Unicode list, CLDR annotations, GSUB ligatures, captions.
#include <gtest/gtest.h>

#include "model/io/file.h"
#include "train/data/emoji_dataset.h"
#include "train/data/emoji_font.h"
#include "train/data/emoji_list.h"
#include "train/data/gsub.h"
#include "train/rng.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr const char* kList =
    "# Version: 15.0\n"
    "# group: Smileys & Emotion\n"
    "# subgroup: face-smiling\n"
    "1F600                  ; fully-qualified     # \U0001F600 E1.0 grinning face\n"
    "263A FE0F              ; fully-qualified     # \u263A E0.6 smiling face\n"
    "263A                   ; unqualified         # \u263A E0.6 smiling face\n"
    "# group: People & Body\n"
    "# subgroup: hand-fingers-open\n"
    "1F44B                  ; fully-qualified     # \U0001F44B E0.6 waving hand\n"
    "1F44B 1F3FB            ; fully-qualified     # \U0001F44B E1.0 waving hand: light skin tone\n"
    "# group: Food & Drink\n"
    "# subgroup: drink\n"
    "1F9CB                  ; fully-qualified     # \U0001F9CB E13.0 bubble tea\n"
    "# group: Flags\n"
    "# subgroup: flag\n"
    "1F3C1                  ; fully-qualified     # \U0001F3C1 E0.6 chequered flag\n";

TEST(DatasetEmojiList, KeepsFullyQualifiedWithoutSkinTonesAndFlags) {
  const auto list = parse_emoji_test(kList);
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[1].key(), "263a");
  EXPECT_EQ(list[1].name, "smiling face");
  EXPECT_EQ(list[2].group, "People & Body");
  EXPECT_EQ(list[3].version, (EmojiVersion{13, 0}));
  EXPECT_EQ(emoji_test_version(kList), "15.0");
}

TEST(DatasetEmojiList, SplitsFollowGroupAndVersion) {
  const auto list = parse_emoji_test(kList);
  EXPECT_TRUE(in_s493(list[0]));  // a face may be of version 1.0
  EXPECT_TRUE(in_s493(list[2]));
  EXPECT_TRUE(in_autoencoder_set(list[3]));
  EXPECT_FALSE(in_s775(list[3]));
  EXPECT_TRUE(is_tintable(list[0]));
  EXPECT_FALSE(is_tintable(list[2]));
  Emoji person = list[2];
  person.subgroup = "person-role";
  EXPECT_FALSE(in_autoencoder_set(person));
}

TEST(DatasetEmojiList, DamagedLinesAreNamed) {
  for (const char* line :
       {"1F600 ; fully-qualified # x grinning", "ZZ ; fully-qualified # x E1.0 a",
        "D800 ; fully-qualified # x E1.0 a", "1F600 ; fully-qualified # x E1.0 ", "", "garbage"}) {
    try {
      parse_emoji_test(line);
      FAIL() << line;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::format) << line;
    }
  }
}

TEST(DatasetEmojiList, AnnotationsWithEntities) {
  const auto words = parse_annotations(
      "<ldml><annotation cp=\"&lt;\">less &amp; | arrow</annotation><annotation cp=\"&lt;\" "
      "type=\"tts\">x</annotation>");
  ASSERT_EQ(words.size(), 1u);
  EXPECT_EQ(words.at("<"), (std::vector<std::string>{"less &", "arrow"}));
  EXPECT_THROW(parse_annotations("<ldml/>"), Error);
}

TEST(DatasetEmojiList, CaptionText) {
  EXPECT_EQ(caption_text("Pi\u00F1ata"), "pinata");
  EXPECT_EQ(caption_text("  keycap: 10! "), "keycap 10");
  EXPECT_EQ(caption_text("T-Rex \u201Chere\u201D"), "t rex here");
  EXPECT_EQ(caption_text("\U0001F600"), "");
  EXPECT_THROW(caption_text("\xFF\xFE"), Error);
}

/// A GSUB table with one ligature lookup: {10, 20, 30} -> 98, {10, 20} -> 99.
std::vector<uint8_t> small_gsub(bool extension) {
  std::vector<uint16_t> words{1, 0, 0, 0, 10};  // header: the lookup list lies at 10
  const auto append = [&](const std::vector<uint16_t>& more) {
    for (uint16_t w : more) words.push_back(w);
  };
  append({1, 4, static_cast<uint16_t>(extension ? 7 : 4), 0, 1, 8});
  if (extension) append({1, 4, 0, 8});
  append({1, 8, 1, 14, 1, 1, 10});
  // The ligature set lies at 14: two ligatures, the longer one first as fonts list them.
  append({2, 6, 14, 98, 3, 20, 30, 99, 2, 20});
  std::vector<uint8_t> bytes;
  for (uint16_t w : words) {
    bytes.push_back(static_cast<uint8_t>(w >> 8));
    bytes.push_back(static_cast<uint8_t>(w));
  }
  return bytes;
}

TEST(DatasetGsub, LigaturesPreferTheFontsOrder) {
  for (bool extension : {false, true}) {
    const auto ligatures = Ligatures::parse(small_gsub(extension));
    EXPECT_EQ(ligatures.substitute({10, 20}), 99u);
    EXPECT_EQ(ligatures.substitute({10, 20, 30}), 98u);
    EXPECT_EQ(ligatures.substitute({5}), 5u);
    EXPECT_EQ(ligatures.substitute({10, 30}), std::nullopt);
    EXPECT_EQ(ligatures.substitute({}), std::nullopt);
  }
}

TEST(DatasetGsub, MutatedTablesGiveFormatErrorsOnly) {
  size_t rejected = 0;
  for (uint32_t round = 0; round < 4000; ++round) {
    auto bytes = small_gsub(round % 2 == 0);
    Rng rng(7, 0, round);
    for (uint32_t k = 0; k <= rng.below(3); ++k)
      bytes[rng.below(static_cast<uint32_t>(bytes.size()))] = static_cast<uint8_t>(rng.next());
    if (rng.below(4) == 0) bytes.resize(rng.below(static_cast<uint32_t>(bytes.size())));
    try {
      Ligatures::parse(bytes).substitute({10, 20, 30});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::format);
      ++rejected;
    }
  }
  EXPECT_GT(rejected, 1000u);
}

/// Up to version 5.0 the list is closed, so these counts hold for every later Unicode; later ones only add.
TEST(DatasetEmojiFont, TheSystemsFontDrawsTheWholeSet) {
  const EmojiDatasetOptions sources;
  const auto list = parse_emoji_test(io::read_file(sources.emoji_test.string()));
  const EmojiFont font(io::read_file(sources.font.string()));
  size_t drawn = 0, autoencoder = 0, s775 = 0, s493 = 0;
  for (const Emoji& emoji : list) {
    drawn += font.render(emoji.codepoints) ? 1u : 0u;
    autoencoder += in_autoencoder_set(emoji) ? 1u : 0u;
    s775 += in_s775(emoji) ? 1u : 0u;
    s493 += in_s493(emoji) ? 1u : 0u;
  }
  EXPECT_EQ(s493, 493u);
  EXPECT_EQ(s775, 775u);
  EXPECT_GE(autoencoder, 992u);
  EXPECT_GE(drawn, 1601u);
}

TEST(DatasetEmojiFont, NotAFont) {
  EXPECT_THROW(EmojiFont("not a font"), Error);
}

}  // namespace
}  // namespace vkflux
