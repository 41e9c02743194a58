// The folder format: the emoji writer's output and hand-made folders.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "model/io/file.h"
#include "model/io/png.h"
#include "train/data/dataset.h"
#include "train/data/emoji_dataset.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

class DatasetFolder : public ::testing::Test {
 protected:
  DatasetFolder()
      : root_(fs::temp_directory_path() / (std::string("vkflux_dataset_") + std::to_string(::getpid()) + "_" +
                                           ::testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(root_);
  }
  ~DatasetFolder() override { fs::remove_all(root_); }

  void add(const std::string& stem, const std::string& caption, int width = 4, int height = 4) {
    fs::create_directories((root_ / stem).parent_path());
    io::Image8 image{width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 4), 200)};
    io::write_png((root_ / (stem + ".png")).string(), image);
    std::ofstream(root_ / (stem + ".txt")) << caption;
  }

  ErrorCode open_error() {
    try {
      Dataset::open(root_);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  }

  /// Every fortieth emoji and a few that are looked at.
  fs::path shortened(const fs::path& emoji_test) {
    std::istringstream in(io::read_file(emoji_test.string()));
    std::string out, line;
    for (int n = 0; std::getline(in, line);) {
      const bool counts = line.find("; fully-qualified") != std::string::npos && n++ % 40 != 0;
      if (!counts || line.ends_with(" red heart") || line.ends_with(" face in clouds")) out += line + "\n";
    }
    io::atomic_write((root_ / "short.txt").string(), out);
    return root_ / "short.txt";
  }

  fs::path root_;
};

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file())
      out[entry.path().lexically_relative(folder).string()] = io::read_file(entry.path().string());
  }
  return out;
}

TEST_F(DatasetFolder, PlainFolderIsReadInKeyOrder) {
  add("b", "second\r\nalso second\n\n", 6, 3);
  add("a/x", "first");
  io::write_png((root_ / "lonely.png").string(), {1, 1, {0, 0, 0, 0}});
  const auto set = Dataset::open(root_);
  ASSERT_EQ(set.items().size(), 2u);
  EXPECT_EQ(set.items()[0].key, "a/x");
  EXPECT_EQ(set.items()[1].captions, (std::vector<std::string>{"second", "also second"}));
  EXPECT_EQ(set.split("all"), (std::vector<size_t>{0, 1}));
  EXPECT_THROW(set.split("s493"), Error);
  EXPECT_EQ(set.image(1).width, 6);
  const auto square = set.image(1, 5);
  EXPECT_EQ(square.width, 5);
  EXPECT_EQ(square.height, 5);
  EXPECT_NEAR(square.at(2, 2)[3], 200.0f / 255.0f, 1e-5f);
}

TEST_F(DatasetFolder, BadFoldersAreFormatErrors) {
  EXPECT_EQ(open_error(), ErrorCode::format);  // empty
  add("a", "\n");
  EXPECT_EQ(open_error(), ErrorCode::format);  // no caption
  add("a", "fine");
  for (const char* index :
       {"{", "[]", "{\"items\": 3}", "{\"items\": [{}]}", "{\"items\": [{\"file\": \"../a.png\"}]}",
        "{\"items\": [{\"file\": \"/a.png\"}]}", "{\"items\": [{\"file\": \"a.png\", \"splits\": 1}]}",
        "{\"items\": [{\"file\": \"a.png\"}, {\"file\": \"a.png\"}]}", "{\"items\": []}"}) {
    std::ofstream(root_ / "index.json") << index;
    EXPECT_EQ(open_error(), ErrorCode::format) << index;
  }
  std::ofstream(root_ / "index.json") << "{\"items\": [{\"file\": \"gone.png\"}]}";
  EXPECT_EQ(open_error(), ErrorCode::io);
  fs::remove(root_ / "index.json");
  std::ofstream(root_ / "a.png") << "no picture";
  EXPECT_THROW(Dataset::open(root_).image(0), Error);
}

TEST_F(DatasetFolder, EmojiTwiceGivesTheSameBytes) {
  EmojiDatasetOptions options;
  options.size = 16;
  options.emoji_test = shortened(options.emoji_test);
  options.out = root_ / "one";
  const auto report = write_emoji_dataset(options);
  options.out = root_ / "two";
  write_emoji_dataset(options);
  EXPECT_EQ(contents(root_ / "one"), contents(root_ / "two"));

  const auto set = Dataset::open(root_ / "one");
  EXPECT_EQ(set.items().size(), report.items);
  EXPECT_EQ(set.split("s493").size(), report.s493);
  EXPECT_EQ(set.split("s775").size(), report.s775);
  EXPECT_EQ(set.split("autoencoder").size() + set.split("unseen").size(), report.items);
  EXPECT_GT(report.s493, 5u);
  EXPECT_GT(report.s775, report.s493);
  EXPECT_GT(report.autoencoder, report.s775);
  EXPECT_GT(report.unseen, 5u);
  EXPECT_EQ(load_clip_tokenizer((root_ / "one" / "tokenizer").string())->encode("red heart", 16).size(), 16u);
  EXPECT_EQ(load_t5_tokenizer((root_ / "one" / "tokenizer_2").string())->encode("red heart", 12).size(), 12u);
  EXPECT_LE(report.clip_s493.max + 2, 16u);
  std::map<std::string, size_t> by_name;
  for (size_t i = 0; i < set.items().size(); ++i) by_name[set.items()[i].name()] = i;
  ASSERT_TRUE(by_name.count("red heart") && by_name.count("face in clouds"));  // one glyph, one ligature
  const auto heart = set.image(by_name["red heart"]);
  const float* center = heart.at(8, 7);
  EXPECT_GT(center[0], 0.7f);
  EXPECT_LT(center[1], 0.5f);
  EXPECT_EQ(center[3], 1.0f);
  EXPECT_EQ(heart.at(0, 15)[3], 0.0f);
}

TEST_F(DatasetFolder, AnInterruptedRunLeavesWhatWasThere) {
  EmojiDatasetOptions options;
  options.size = 8;
  options.emoji_test = shortened(options.emoji_test);
  options.out = root_ / "set";
  write_emoji_dataset(options);
  const auto before = contents(options.out);
  options.progress = [](size_t done, size_t) {
    if (done == 5) throw Error(ErrorCode::cancelled, "interrupted");
  };
  EXPECT_THROW(write_emoji_dataset(options), Error);
  EXPECT_EQ(contents(options.out), before);
}

TEST_F(DatasetFolder, MissingSourceNamesItsPackage) {
  EmojiDatasetOptions options;
  options.out = root_;
  options.font = root_ / "none.ttf";
  try {
    write_emoji_dataset(options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
    EXPECT_NE(std::string(error.what()).find("fonts-noto-color-emoji"), std::string::npos);
  }
}

DatasetItem dog() {
  return {"dog", "dog.png", {"dog face", "pet", "puppy"}, "", "", "", {}, true};
}

TEST(DatasetCaptions, SharesAndHeldOutColours) {
  const DatasetItem item = dog();
  std::map<std::string, int> seen;
  const int n = 20000;
  for (uint32_t i = 0; i < n; ++i) {
    Rng rng(1, 2, 0, i);
    const auto sample = sample_caption(item, {0.1f, 0.2f, 0.05f}, rng);
    if (sample.color >= 0) {
      EXPECT_FALSE(tint_held_out(item, static_cast<size_t>(sample.color)));
      EXPECT_EQ(sample.text, std::string(kTintColors[static_cast<size_t>(sample.color)].name) + " dog face");
      ++seen["coloured"];
    } else {
      ++seen[sample.text];
    }
  }
  EXPECT_NEAR(seen[""] / double(n), 0.05, 0.01);
  EXPECT_NEAR(seen["pet"] / double(n), 0.05, 0.01);
  EXPECT_NEAR(seen["puppy"] / double(n), 0.05, 0.01);
  EXPECT_NEAR(seen["coloured"] / double(n), 0.2, 0.02);
  EXPECT_NEAR(seen["dog face"] / double(n), 0.65, 0.02);
  EXPECT_EQ(seen.size(), 5u);
}

TEST(DatasetCaptions, AFifthOfThePairsIsHeldOut) {
  int held = 0;
  for (int i = 0; i < 2000; ++i) {
    DatasetItem item = dog();
    item.key = "images/" + std::to_string(i);
    for (size_t c = 0; c < kTintColors.size(); ++c) held += tint_held_out(item, c) ? 1 : 0;
  }
  EXPECT_NEAR(held / 12000.0, 0.2, 0.015);
}

TEST(DatasetCaptions, EpochOrderIsAPermutation) {
  const auto order = epoch_order(100, 3, 1, 7);
  EXPECT_EQ(std::set<size_t>(order.begin(), order.end()).size(), 100u);
  EXPECT_EQ(order, epoch_order(100, 3, 1, 7));
  EXPECT_NE(order, epoch_order(100, 3, 1, 8));
}

}  // namespace
}  // namespace vkflux
