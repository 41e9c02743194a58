// Byte-level BPE against the libraries that publish such tokenizers
// (tests/data/tokenizers/make_bpe_vectors.py).
#include "model/text/tokenizer_byte_bpe.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "model/io/file.h"
#include "model/io/gzip.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/text/tokenizer.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";

const io::Json& vectors() {
  static const io::Json all = io::parse_json(
      io::gunzip(io::read_file(kData + "bpe_vectors.json.gz"), "bpe_vectors.json.gz", 64u << 20),
      "bpe_vectors.json");
  return all;
}

void expect_equal(const ByteBpe& bpe, const io::Json& texts, const io::Json& ids, bool special) {
  size_t wrong = 0;
  ASSERT_GT(texts.size(), 2000u);
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto text = texts[i].at(0).get<std::string>();
    const Ids got = bpe.ids(text, special), want = ids[i].get<Ids>();
    if (got == want || ++wrong > 5) continue;
    ADD_FAILURE() << io::json_text(io::Json(text)) << ": " << io::json_text(io::Json(got)) << " in place of "
                  << io::json_text(io::Json(want));
  }
  EXPECT_EQ(wrong, 0u);
}

TEST(ByteBpe, QwenOnAwkwardStrings) {
  io::Json ids = io::Json::array();
  for (const io::Json& row : vectors().at("qwen")) ids.push_back(row.at(1));
  for (const char* folder : {"qwen", "qwen_files", "qwen/tokenizer.json", "qwen_files/vocab.json"})
    expect_equal(*load_byte_bpe(kData + folder), vectors().at("qwen"), ids, true);
  expect_equal(*byte_bpe_of_tensors(kData + "qwen.gguf"), vectors().at("qwen"), ids, true);
}

TEST(ByteBpe, TekkenOnAwkwardStrings) {
  for (const char* folder : {"tekken", "tekken_hf", "tekken/tekken.json"}) {
    const auto bpe = load_byte_bpe(kData + folder);
    expect_equal(*bpe, vectors().at("qwen"), vectors().at("tekken"), true);
    expect_equal(*bpe, vectors().at("qwen"), vectors().at("tekken_plain"), false);
  }
  expect_equal(*byte_bpe_of_tensors(kData + "tekken.gguf"), vectors().at("qwen"), vectors().at("tekken"),
               true);
}

TEST(ByteBpe, TekkenInsideATensor) {
  const std::string text = io::read_file(kData + "tekken/tekken.json");
  const test::TempFolder folder;
  const std::string path = folder.file("encoder.safetensors");
  io::TensorData data{
      "text_encoders.mistral3_24b.tekken_model", io::FileDType::u8, {static_cast<int64_t>(text.size())}, {}};
  data.bytes.resize(text.size());
  std::transform(text.begin(), text.end(), data.bytes.begin(),
                 [](char c) { return static_cast<std::byte>(c); });
  io::write_safetensors(path, {data});
  const auto bpe = byte_bpe_of_tensors(path);
  ASSERT_TRUE(bpe);
  EXPECT_EQ(bpe->ids("<s>[INST]"), (Ids{1, 3}));
  EXPECT_EQ(bpe->piece(7), "[SYSTEM_PROMPT]");
  EXPECT_EQ(bpe->find("[/INST]"), 4);
  EXPECT_FALSE(byte_bpe_of_tensors(kData + "prompts_qwen3.safetensors"));
}

TEST(ByteBpe, PartsAreMergedAsOneText) {
  const auto bpe = load_byte_bpe(kData + "qwen");
  const std::string text = "<|im_start|>user\n\n\nfox<|im_end|>\n";
  EXPECT_EQ(bpe->ids({{"<|im_start|>user\n", true}, {"\n\nfox", false}, {"<|im_end|>\n", true}}),
            bpe->ids(text));
  const int32_t end = *bpe->find("<|im_end|>");
  const Ids plain = bpe->ids({{"a<|im_end|>", false}, {"<|im_end|>", true}});
  EXPECT_EQ(std::count(plain.begin(), plain.end(), end), 1);
  EXPECT_TRUE(bpe->ids("").empty());
}

ByteBpeModel tiny() {
  ByteBpeModel m;
  int64_t id = 0;
  for (const char* t : {"a", "b", "c", "\u0120", "ab", "abc", "bc"}) m.tokens.emplace_back(t, id++);
  m.merges = {{"a", "b"}, {"b", "c"}, {"ab", "c"}};
  m.steps = {{false, R"(\p{L}+|\s+)"}};
  return m;
}

TEST(ByteBpe, AddedTokensAsTheirFlagsSay) {
  ByteBpeModel m = tiny();
  m.added = {
      {"<x>", 20}, {"<xy>", 21}, {"<l>", 22, false, true, true}, {"ca", 23, false, false, false, true}};
  const ByteBpe bpe(m);
  EXPECT_EQ(bpe.ids("a<xy>b<x>"), (Ids{0, 21, 1, 20}));  // the longest
  EXPECT_EQ(bpe.ids("a  <l> b"), (Ids{0, 22, 1}));       // with the white space around it
  EXPECT_EQ(bpe.ids("ca bca"), (Ids{23, 3, 6, 0}));      // a word by itself
  EXPECT_EQ(bpe.ids("<x>", false), Ids{});               // none of its bytes is in the vocabulary
  EXPECT_EQ(bpe.vocab_size(), 24);
  EXPECT_EQ(bpe.piece(22), "<l>");
  EXPECT_EQ(bpe.piece(19), "");
}

TEST(ByteBpe, UnknownBytesAndWholePieces) {
  ByteBpeModel m = tiny();
  m.unknown = 6;
  EXPECT_EQ(ByteBpe(m).ids("zzab"), (Ids{6, 6, 4}));
  m.fuse_unknown = true;
  EXPECT_EQ(ByteBpe(m).ids("zzab"), (Ids{6, 4}));
  EXPECT_EQ(ByteBpe(m).ids("bca"), (Ids{6, 0}));
  m.tokens.emplace_back("bca", 9);
  EXPECT_EQ(ByteBpe(m).ids("bca"), (Ids{6, 0}));
  m.whole_first = true;
  EXPECT_EQ(ByteBpe(m).ids("bca"), Ids{9});
  m.steps = {{true, ""}};
  EXPECT_EQ(ByteBpe(m).ids("a"), (Ids{3, 0}));
}

// What a merge makes takes part at once, before other pairs of the merge's own rank.
TEST(ByteBpe, MergesGoOneByOne) {
  ByteBpeModel m = tiny();
  m.tokens = {{"a", 0}, {"b", 1}, {"ab", 2}, {"aba", 3}};
  m.merges = {{"ab", "a"}, {"a", "b"}};
  EXPECT_EQ(ByteBpe(m).ids("abab"), (Ids{3, 1}));
}

void refused(const std::function<void()>& f, const std::string& word, ErrorCode code = ErrorCode::format) {
  test::expect_error(code, {word}, f);
}

TEST(ByteBpe, ContradictionsAreRefused) {
  const auto with = [](auto change) {
    ByteBpeModel m = tiny();
    change(m);
    return [m] { ByteBpe bpe(m); };
  };
  refused(with([](auto& m) { m.tokens.clear(); }), "no tokens");
  refused(with([](auto& m) { m.tokens[0].second = -1; }), "id -1");
  refused(with([](auto& m) { m.tokens[0].second = 1; }), "id 1");
  refused(with([](auto& m) { m.tokens[1].first = "a"; }), "\"a\"");
  refused(with([](auto& m) { m.merges.push_back({"c", "c"}); }), "\"cc\"");
  refused(with([](auto& m) { m.added = {{"a", 5}}; }), "\"a\"");
  refused(with([](auto& m) { m.before = {99}; }), "99");
  refused(with([](auto& m) { m.ranked = true; }), "byte");
  refused(with([](auto& m) { m.steps = {{false, "("}}; }), "pattern");
}

TEST(ByteBpe, FilesSayWhatIsNotComputed) {
  const std::string good = io::read_file(kData + "qwen/tokenizer.json");
  const auto with = [&](const std::function<void(io::Json&)>& change, const std::string& config = "") {
    return [=] {
      io::Json json = io::parse_json(good, "x");
      change(json);
      ByteBpe bpe(parse_byte_bpe_json(json.dump(), config));
    };
  };
  using J = io::Json;
  const ErrorCode no = ErrorCode::unsupported;
  refused(with([](J& j) { j["model"]["type"] = "Unigram"; }), "Unigram");
  refused(with([](J& j) { j["model"]["vocab"] = nullptr; }), "BPE");
  refused(with([](J& j) { j["model"]["merges"] = "a b"; }), "merges");
  refused(with([](J& j) { j["model"]["merges"].push_back("a b c"); }), "merge");
  refused(with([](J& j) { j["model"]["end_of_word_suffix"] = "</w>"; }), "end_of_word_suffix", no);
  refused(with([](J& j) { j["model"]["dropout"] = 0.1; }), "dropout", no);
  refused(with([](J& j) { j["model"]["byte_fallback"] = true; }), "byte_fallback", no);
  refused(with([](J& j) { j["model"]["ignore_merges"] = 1; }), "ignore_merges");
  refused(with([](J& j) { j["normalizer"] = {{"type", "Lowercase"}}; }), "Lowercase", no);
  refused(with([](J& j) { j["pre_tokenizer"] = {{"type", "Metaspace"}}; }), "Metaspace", no);
  refused(with([](J& j) { j["pre_tokenizer"] = nullptr; }), "ByteLevel", no);
  refused(with([](J& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }), "Removed", no);
  refused(with([](J& j) { j["post_processor"] = {{"type", "Odd"}}; }), "Odd", no);
  refused(with([](J& j) { j["added_tokens"][0]["id"] = 1.5; }), "id");
  refused(with([](J&) {}, R"({"padding_side": "up"})"), "padding_side");
  refused(with([](J&) {}, R"({"add_bos_token": true, "bos_token": "[none]"})"), "[none]");
  refused(with([](J&) {}, R"([])"), "object");
  // Null is what absent is.
  with(
      [](J& j) { j["model"]["dropout"] = nullptr, j["post_processor"] = nullptr, j["padding"] = nullptr; })();
}

TEST(ByteBpe, WhatStandsAroundATextAndSides) {
  const std::string good = io::read_file(kData + "qwen/tokenizer.json");
  const ByteBpeModel m = parse_byte_bpe_json(
      good, R"({"add_bos_token": true, "bos_token": {"content": "<|im_start|>"}, "padding_side": "left",
                "truncation_side": "left", "pad_token": "<think>", "chat_template": [{"name": "default", "template": "x"}]})");
  const ByteBpe bpe(m);
  EXPECT_EQ(m.before, std::vector<int64_t>{*bpe.find("<|im_start|>")});
  EXPECT_EQ(m.pad_left, true);
  EXPECT_EQ(m.cut_left, true);
  EXPECT_EQ(m.pad, "<think>");
  EXPECT_EQ(m.chat_template, "x");
  EXPECT_EQ(parse_byte_bpe_json(good, "").pad_left, std::nullopt);
  EXPECT_EQ(parse_byte_bpe_json(good, "{}").pad_left, false);
}

TEST(ByteBpe, PathsAndTexts) {
  const test::TempFolder folder;
  for (const std::string& path : {kData + "nowhere", folder.path()})
    refused([&] { load_byte_bpe(path); }, path, ErrorCode::io);
  const auto bpe = load_byte_bpe(kData + "qwen");
  for (const std::string& text : {std::string("a\xFFz"), std::string("\xED\xA0\x80")})
    refused([&] { bpe->ids(text); }, "", ErrorCode::invalid_argument);
  refused([&] { bpe->ids(std::string(2 * Tokenizer::kMaxTextBytes + 1, 'a')); }, "bytes",
          ErrorCode::invalid_argument);
  EXPECT_FALSE(bpe->ids(std::string("a\0b", 3)).empty());
  EXPECT_FALSE(bpe->ids(std::string(Tokenizer::kMaxTextBytes, 'a')).empty());  // in good time
}

}  // namespace
}  // namespace vkflux
