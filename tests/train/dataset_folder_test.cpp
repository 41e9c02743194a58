// Folders as people have them: mixed formats and names, links, captions in every encoding.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "model/io/file.h"
#include "model/io/png.h"
#include "model/text/characters.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/pictures.h"
#include "tests/harness/temp_folder.h"
#include "train/data/dataset.h"
#include "train/data/tokenizer_training.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::flat;

class OwnFolder : public ::testing::Test {
 protected:
  /// Not synced, as atomic_write() would: there are many.
  void write(const std::string& name, const std::string& bytes) {
    fs::create_directories(fs::path(folder_.file(name)).parent_path());
    std::ofstream(folder_.file(name), std::ios::binary) << bytes;
  }
  void add(const std::string& name, const std::string& bytes, const std::string& caption_name,
           const std::string& caption) {
    write(name, bytes);
    if (!caption_name.empty()) write(caption_name, caption);
  }
  void add(const std::string& stem) {
    add(stem + ".png", io::encode_png(flat(4, 4, 9, 9, 9)), stem + ".txt", stem);
  }
  Dataset open() { return Dataset::open(folder_.path()); }
  static std::vector<std::string> files(const Dataset& data) {
    std::vector<std::string> out;
    for (const DatasetItem& item : data.items()) out.push_back(item.file);
    return out;
  }
  static bool says(const Dataset& data, const std::string& text) {
    const auto all = data.remarks().sentences();
    return std::any_of(all.begin(), all.end(),
                       [&](const auto& s) { return s.find(text) != std::string::npos; });
  }

  test::TempFolder folder_;
};

TEST_F(OwnFolder, ReadsEveryFormWithACaptionAndNamesTheRest) {
  add("a.PNG", io::encode_png(flat(8, 8, 250, 0, 0)), "a.txt", "red\n");
  add("b.jpg", test::jpeg_of(flat(32, 16, 0, 250, 0), {.exif = test::exif_of(6)}), "b.txt", "green");
  add("c.webp", test::webp_of(flat(8, 8, 0, 0, 250, 128)), "c.txt",
      "\xEF\xBB\xBF"
      "blue\r\nazure\r\n");
  add("d.JPeG", test::jpeg_of(flat(16, 16, 9, 9, 9), {.cmyk = true, .profile = true}), "d.TXT",
      " dark \r grey\r");
  add("e.png", io::encode_png(flat(8, 8, 1, 1, 1)), "", "");
  add("f.gif", "GIF89a", "f.txt", "a film");
  add("sub/deep/g.png", test::jpeg_of(flat(8, 8, 200, 200, 0)), "sub/deep/g.txt",
      std::string("\xFF\xFE"
                  "y\0e\0l\0l\0o\0w\0",
                  14));
  add(".hidden.png", io::encode_png(flat(8, 8, 1, 1, 1)), ".hidden.txt", "hidden");
  add("tokenizer/merges.txt", "", "", "");
  const Dataset data = open();
  EXPECT_EQ(files(data), (std::vector<std::string>{"a.PNG", "b.jpg", "c.webp", "d.JPeG", "sub/deep/g.png"}));
  EXPECT_EQ(data.items()[2].captions, (std::vector<std::string>{"blue", "azure"}));
  EXPECT_EQ(data.items()[3].captions, (std::vector<std::string>{"dark", "grey"}));
  EXPECT_EQ(data.items()[4].captions, (std::vector<std::string>{"yellow"}));
  EXPECT_TRUE(says(data, "without a caption (NAME.txt beside NAME.png): 1 (e.png)"));
  EXPECT_TRUE(says(data, "in a format that isn't read (PNG, JPEG and WebP are): 1 (f.gif)"));
  EXPECT_TRUE(says(data, "captions without a picture: 1 (f.txt)"));
  EXPECT_TRUE(says(data, "hidden files and folders: 2 (.hidden.png, .hidden.txt)"));
  EXPECT_TRUE(says(data, "EXIF says: 1 (b.jpg)"));
  EXPECT_TRUE(says(data, "not square: the middle square is used: 1 (b.jpg)"));
  EXPECT_TRUE(says(data, "alpha channel: transparent parts are shown on white: 1 (c.webp)"));
  EXPECT_TRUE(says(data, "(CMYK): converted to RGB without a profile: 1 (d.JPeG)"));
  EXPECT_TRUE(says(data, "(ICC), which isn't applied: taken for sRGB: 1 (d.JPeG)"));
  EXPECT_FALSE(says(data, "merges"));
  EXPECT_EQ(data.image(1).width, 16);  // upright
  EXPECT_NEAR(data.image(1, 4).at(2, 2)[1], 250 / 255.f, 0.02f);
  EXPECT_NEAR(data.image(2, 4).at(2, 2)[3], 128 / 255.f, 1e-4f);
}

TEST_F(OwnFolder, FollowsLinksAndReadsEachFolderOnce) {
  const test::TempFolder elsewhere;
  io::atomic_write(elsewhere.file("pictures/x.png"), io::encode_png(flat(4, 4, 9, 9, 9)));
  io::atomic_write(elsewhere.file("pictures/x.txt"), std::string_view("x"));
  add("own/a");
  fs::create_directory_symlink(elsewhere.file("pictures"), folder_.file("linked"));
  fs::create_directory_symlink(elsewhere.file("pictures"), folder_.file("twice"));
  fs::create_directory_symlink(folder_.path(), folder_.file("own/loop"));
  fs::create_directory_symlink(folder_.file("own"), folder_.file("0own"));
  fs::create_symlink(folder_.file("self.png"), folder_.file("self.png"));
  fs::create_symlink(folder_.file("nowhere"), folder_.file("gone"));
  fs::create_symlink(folder_.file("own/a.png"), folder_.file("b.png"));
  fs::create_symlink(folder_.file("own/a.txt"), folder_.file("b.txt"));
  const Dataset data = open();
  EXPECT_EQ(files(data), (std::vector<std::string>{"b.png", "linked/x.png", "own/a.png"}));
  EXPECT_TRUE(says(data, "links to folders that are read already: 3 (0own, own/loop, twice)"));
  EXPECT_TRUE(says(data, "links that lead nowhere: 2 (gone, self.png)"));
}

TEST_F(OwnFolder, RefusesABadCaptionOrPictureWhenItOpens) {
  add("a");
  add("b.png", io::encode_png(flat(4, 4, 9, 9, 9)), "b.txt", "pomme\nr\xE9tro");
  expect_error(ErrorCode::format, {"b.txt", "line 2", "0xE9", "UTF-8"}, [&] { open(); });
  add("b.png", "no picture", "b.txt", "fine");
  expect_error(ErrorCode::format, {"b.png"}, [&] { open(); });
  std::string cut = test::jpeg_of(flat(64, 64, 9, 90, 9));
  cut.resize(cut.size() - 20);
  add("b.png", cut, "b.txt", "fine");
  const Dataset data = open();
  expect_error(ErrorCode::format, {"b.png", "bad JPEG"}, [&] { data.check_pictures({0, 1}); });
  data.check_pictures({0});
  fs::remove(folder_.file("b.png"));
  add("b.png", io::encode_png(flat(4, 4, 9, 9, 9)), "b.txt", " \n\t\n");
  expect_error(ErrorCode::format, {"b.txt", "no caption"}, [&] { open(); });
}

TEST_F(OwnFolder, AFolderWithoutUsableFilesSaysWhatThereIs) {
  add("e.png", io::encode_png(flat(8, 8, 1, 1, 1)), "", "");
  expect_error(ErrorCode::format, {folder_.path(), "without a caption", "e.png"}, [&] { open(); });
}

TEST_F(OwnFolder, SplitsByTheHashOfTheName) {
  for (int i = 0; i < 60; ++i) add(fmt::format("p{}", i));
  const Dataset data = open();
  const auto train = data.split("train"), test = data.split("test");
  EXPECT_EQ(train.size() + test.size(), 60u);
  EXPECT_GE(test.size(), 2u);
  EXPECT_LE(test.size(), 14u);
  EXPECT_EQ(data.first_split({"s493", "train"}), "train");
  EXPECT_EQ(data.first_split({"s775"}), "all");
  EXPECT_TRUE(says(data, "by the hash of their names in \"test\": " + std::to_string(test.size())));
  std::vector<std::string> held;
  for (const size_t i : test) held.push_back(data.items()[i].key);
  add("another");  // the others stay where they are
  const Dataset more = open();
  for (const DatasetItem& item : more.items()) {
    if (item.key == "another") continue;
    EXPECT_EQ(item.in("test"), std::find(held.begin(), held.end(), item.key) != held.end()) << item.key;
  }
}

TEST_F(OwnFolder, OnePictureIsForTraining) {
  for (const char* name : {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"}) {
    const test::TempFolder one;
    io::atomic_write(one.file(std::string(name) + ".png"), io::encode_png(flat(4, 4, 9, 9, 9)));
    io::atomic_write(one.file(std::string(name) + ".txt"), std::string_view("x"));
    EXPECT_EQ(Dataset::open(one.path()).split("train").size(), 1u);
  }
}

TEST_F(OwnFolder, AnIndexMayNameAnyFormat) {
  add("a.jpg", test::jpeg_of(flat(16, 16, 9, 90, 9)), "a.txt", "green");
  add("a.png", io::encode_png(flat(4, 4, 9, 9, 9)), "", "");
  io::atomic_write(folder_.file("index.json"),
                   std::string_view(R"({"items":[{"file":"a.jpg","splits":["mine"]},{"file":"a.png"}]})"));
  const Dataset data = open();
  EXPECT_EQ(files(data), (std::vector<std::string>{"a.jpg", "a.png"}));
  EXPECT_EQ(data.first_split({"s493", "train"}), "all");
  EXPECT_EQ(data.split("mine").size(), 1u);
}

// Corpora that a trainer of tokenizers could stumble over.
TEST_F(OwnFolder, TokenizersAreMadeFromAnyCaptions) {
  const std::vector<std::vector<std::string>> corpora{
      {"a"},
      {"photo", "photo", "photo"},
      {"\u4E2D\u6587", "\u732B"},
      {"\U0001F34E"},
      {std::string(6000, 'x') + " end", "short"},
      {"\u0434\u043E\u043C \u0438 \u043A\u043E\u0442", "\u05D1\u05D9\u05EA"},
      {"<|endoftext|>", "</s> <pad>"},
      {"tab\tand\u00A0space", "\u2581"}};
  for (const auto& texts : corpora) {
    std::vector<TrainingText> corpus;
    for (const std::string& text : texts) corpus.push_back({text, 1});
    const test::TempFolder out;
    ASSERT_NO_THROW(write_tokenizers(out.path(), corpus, {})) << texts[0];
    EXPECT_TRUE(has_tokenizers(out.path()));
    const auto clip = load_clip_tokenizer(out.file("tokenizer"));
    const auto t5 = load_t5_tokenizer(out.file("tokenizer_2"));
    for (const std::string& text : texts) {
      EXPECT_FALSE(clip->tokenize(text).empty());
      EXPECT_EQ(t5->encode(text, 8).size(), 8u);
    }
    const test::TempFolder copy;
    copy_tokenizers(out.path(), copy.path());
    EXPECT_EQ(io::read_file(copy.file("tokenizer_2/spiece.model")),
              io::read_file(out.file("tokenizer_2/spiece.model")));
  }
  const test::TempFolder out;
  std::vector<TrainingText> many;  // more characters than pieces
  for (uint32_t c = 0x4E00; c < 0x4E00 + 3000; c += 10) {
    std::string text;
    for (uint32_t i = 0; i < 10; ++i) text += to_utf8(std::u32string(1, c + i));
    many.push_back({text, 1});
  }
  write_tokenizers(out.path(), many, {});
  EXPECT_LE(load_t5_tokenizer(out.file("tokenizer_2"))->vocab_size(), 2048);
  for (const char* text : {"!!!", "", " \u00A0\t", "\u2581"}) {
    expect_error(ErrorCode::invalid_argument, {"no letters"}, [&] {
      write_tokenizers(out.path(), {{text, 1}, {"...", 1}}, {});
    });
  }
  expect_error(ErrorCode::io, {folder_.path(), "tokenizer_2"},
               [&] { copy_tokenizers(folder_.path(), folder_.file("to")); });
}

}  // namespace
}  // namespace vkflux
