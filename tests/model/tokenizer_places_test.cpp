// Tokenizers that other files than a tokenizer's folder bring.
#include "model/text/tokenizer_places.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "model/io/file.h"
#include "model/io/gguf.h"
#include "model/io/gzip.h"
#include "model/io/json.h"
#include "model/io/safetensors.h"
#include "model/text/tokenizer_clip.h"
#include "model/text/tokenizer_gguf.h"
#include "tests/harness/environment_variable.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gzip_of.h"
#include "tests/harness/temp_folder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::expect_error;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/";

std::vector<std::string> texts() {
  std::vector<std::string> out;
  for (const auto& row : io::read_json(kData + "tokenizers/vectors.json").at("t5"))
    out.push_back(row.at(0).get<std::string>());
  return out;
}

TEST(TokenizerPlaces, GgufMetadataIsTheModelItself) {
  const auto want = load_t5_tokenizer(kData + "tokenizers/t5/spiece.model");
  const auto got = t5_tokenizer_of_tensors(kData + "gguf/t5_tokenizer.gguf");
  ASSERT_NE(got, nullptr);
  for (const std::string& text : texts()) EXPECT_EQ(got->encode(text, 24), want->encode(text, 24)) << text;
  EXPECT_EQ(got->pad_id(), want->pad_id());
  EXPECT_EQ(got->eos_id(), want->eos_id());
  const int32_t pieces = want->vocab_size();
  EXPECT_EQ(got->vocab_size(), pieces + 3);  // with the extra ids, without what fills up
  EXPECT_EQ(got->tokenize("<extra_id_0>"), (std::vector<int32_t>{pieces + 2}));
}

TEST(TokenizerPlaces, DamagedMetadataIsRefused) {
  const io::GgufFile file(kData + "gguf/t5_tokenizer.gguf");
  const auto refused = [&](const std::string& key, const io::Json& value, const std::string& what) {
    io::Json values = file.values();
    values["tokenizer.ggml." + key] = value;
    expect_error(ErrorCode::format, {what}, [&] { t5_tokenizer_from_gguf(values, "x"); });
  };
  refused("tokens", nullptr, "tokens");
  refused("scores", {1, 2}, "go together");
  refused("eos_token_id", 1000000, "eos_token_id");
  refused("eos_token_id", -1, "eos_token_id");
  refused("precompiled_charsmap", {300}, "precompiled_charsmap");
  refused("precompiled_charsmap", {1, 2, 3, 4, 5}, "character map");
  refused("add_space_prefix", "yes", "add_space_prefix");
  io::Json types = file.values()["tokenizer.ggml.token_type"];
  types[5] = "x";
  refused("token_type", types, "piece 5");
  EXPECT_FALSE(has_gguf_unigram(io::Json::object()));
  EXPECT_FALSE(has_gguf_unigram({{"tokenizer.ggml.model", "llama"}}));
}

TEST(TokenizerPlaces, ATensorMayHoldTheModel) {
  const test::TempFolder folder;
  const std::string model = io::read_file(kData + "tokenizers/t5/spiece.model");
  const auto bytes = std::as_bytes(std::span(model));
  const std::vector<std::byte> copy(bytes.begin(), bytes.end());
  const auto size = static_cast<int64_t>(model.size());
  io::write_safetensors(folder.file("a.safetensors"), {{"spiece_model", io::FileDType::u8, {size}, copy}});
  const auto got = t5_tokenizer_of_tensors(folder.file("a.safetensors"));
  ASSERT_NE(got, nullptr);
  const auto want = load_t5_tokenizer(kData + "tokenizers/t5");
  EXPECT_EQ(got->encode("a cat", 12), want->encode("a cat", 12));
  io::write_safetensors(folder.file("b.safetensors"), {io::tensor_data("x", {1}, std::vector<float>{1})});
  EXPECT_EQ(t5_tokenizer_of_tensors(folder.file("b.safetensors")), nullptr);
}

TEST(TokenizerPlaces, MergesOfOpenClip) {
  const test::TempFolder folder;
  // As the published file: a line that names it, then merges; ids follow from their order.
  const std::string text = "\"bpe_simple_vocab_16e6.txt#version: 0.2\nc a\nca t</w>\nt h\nth e</w>\n";
  io::atomic_write(folder.file(kClipVocabulary), test::gzip_of(text));
  const auto tokenizer = load_clip_tokenizer(folder.file(kClipVocabulary));
  EXPECT_EQ(tokenizer->vocab_size(), 512 + 4 + 2);
  EXPECT_EQ(tokenizer->tokenize("the cat"), (std::vector<int32_t>{515, 513}));
  EXPECT_EQ(tokenizer->tokenize("A"), (std::vector<int32_t>{256 + 'a' - '!'}));
  EXPECT_EQ(tokenizer->eos_id(), 517);
  EXPECT_EQ(tokenizer->encode("cat", 5), (std::vector<int32_t>{516, 513, 517, 517, 517}));
  io::atomic_write(folder.file("plain.txt"), text);
  EXPECT_EQ(load_clip_tokenizer(folder.file("plain.txt"))->tokenize("the cat"),
            tokenizer->tokenize("the cat"));

  const auto refused = [&](const std::string& bytes, const std::string& what) {
    io::atomic_write(folder.file("bad.gz"), bytes);
    expect_error(ErrorCode::format, {what}, [&] { load_clip_tokenizer(folder.file("bad.gz")); });
  };
  const std::string good = test::gzip_of(text);
  refused(good.substr(0, good.size() / 2), "cut short");
  std::string damaged = good;
  damaged[damaged.size() - 6] ^= 1;
  refused(damaged, "zlib");
  refused(test::gzip_of("#\na b c\n"), "line 2");
  refused(test::gzip_of("#\na b\na b\n"), "comes again");
  expect_error(ErrorCode::format, {"over 8 bytes"}, [&] { io::gunzip(good, "x", 8); });
}

TEST(TokenizerPlaces, ThoseOfDecoders) {
  const test::TempFolder home;
  const test::EnvironmentVariable hub("HF_HOME", home.file("hf")), data("XDG_DATA_HOME", home.file("data"));
  const auto put = [&](const std::string& path) {
    std::filesystem::create_directories(std::filesystem::path(home.file(path)).parent_path());
    io::atomic_write(home.file(path), "{}");
    return std::filesystem::path(home.file(path)).parent_path().string();
  };
  const std::string own = put("data/vkflux/qwen3/vocab.json"), beside = put("model/tokenizer/tokenizer.json"),
                    cached = put("hf/hub/models--Qwen--Qwen3-4B/snapshots/1/tokenizer.json"),
                    tekken = put("data/vkflux/mistral/tekken.json");
  put("hf/hub/models--Qwen--Qwen3-4B-Instruct-2507/snapshots/1/tokenizer.json");
  EXPECT_EQ(chat_tokenizer_places(PromptKind::qwen3, {home.file("model"), home.file("none")}),
            (std::vector<std::string>{beside, own, cached}));
  EXPECT_EQ(chat_tokenizer_places(PromptKind::mistral, {}), std::vector<std::string>{tekken});
  EXPECT_NE(chat_tokenizer_commands(PromptKind::qwen3).find("Qwen/Qwen3-4B"), std::string::npos);
  EXPECT_NE(chat_tokenizer_commands(PromptKind::mistral).find("tekken.json"), std::string::npos);
}

}  // namespace
}  // namespace vkflux
