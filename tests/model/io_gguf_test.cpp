// GGUF: every block type against what the package of its makers decodes (tests/data/gguf), and every rule of
// the format broken once.
#include "model/io/gguf.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "autograd/half.h"
#include "model/io/names.h"
#include "model/io/safetensors.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gguf_writer.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::gguf_raw, test::gguf_text;

const std::string kData = VKFLUX_SOURCE_DIR "/tests/data/gguf/";

struct Entry {
  std::string name = "a";
  std::vector<uint64_t> dims{4};
  uint32_t type = 0;
  uint64_t offset = 0;
};
std::string info(const Entry& e) {
  std::string out = gguf_text(e.name) + gguf_raw(static_cast<uint32_t>(e.dims.size()));
  for (const uint64_t d : e.dims) out += gguf_raw(d);
  return out + gguf_raw(e.type) + gguf_raw(e.offset);
}
std::string file_of(const std::string& values, uint64_t value_count, const std::vector<Entry>& tensors,
                    size_t data = 64, uint32_t version = 3) {
  std::string out =
      "GGUF" + gguf_raw(version) + gguf_raw(uint64_t{tensors.size()}) + gguf_raw(value_count) + values;
  for (const Entry& e : tensors) out += info(e);
  out.resize((out.size() + 31) / 32 * 32, '\0');
  return out + std::string(data, '\0');
}

void refused(const std::string& bytes, const std::vector<std::string>& words,
             ErrorCode code = ErrorCode::format) {
  const test::TempFolder folder;
  const std::string path = folder.file("bad.gguf");
  std::ofstream(path, std::ios::binary) << bytes;
  std::vector<std::string> all = words;
  all.push_back(path);
  test::expect_error(code, all, [&] { GgufFile file(path); });
}

TEST(IoGguf, EveryBlockDecodesToTheBitAsItsMakersDo) {
  const auto file = open_tensors(kData + "blocks.gguf"), want = open_tensors(kData + "blocks.safetensors");
  ASSERT_EQ(file->tensors().size(), 13u);
  for (const auto& [name, info] : want->tensors()) {
    EXPECT_EQ(file->info(name).shape, info.shape) << name;
    EXPECT_EQ(file->read_f32(name), want->read_f32(name)) << name;
    if (block_values(file->info(name).dtype) > 1) {
      EXPECT_EQ(io::name(file->info(name).dtype), name);
    }
  }
}

TEST(IoGguf, PartsAndOtherTypesAreReadThroughTheNames) {
  const auto file = open_tensors(kData + "blocks.gguf");
  const NamedTensors named(*file, {});
  const std::vector<float> all = file->read_f32("Q6_K");
  std::vector<float> part(512);
  named.read("Q6_K", DType::f32, 256, std::as_writable_bytes(std::span(part)));
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + 256));
  std::vector<uint16_t> half(all.size());
  named.read("Q6_K", DType::f16, 0, std::as_writable_bytes(std::span(half)));
  std::vector<uint16_t> want(all.size());
  std::transform(all.begin(), all.end(), want.begin(), [](float x) { return to_f16(x); });
  EXPECT_EQ(half, want);
}

TEST(IoGguf, ValuesOfEveryKind) {
  const GgufFile file(kData + "blocks.gguf");
  EXPECT_EQ(file.metadata().at("general.architecture"), "flux");
  EXPECT_EQ(file.metadata().at("test.number"), "7");
  EXPECT_EQ(file.values().at("test.yes"), true);
  EXPECT_EQ(file.values().at("test.words"), Json({"one", "two", "\u6f22"}));
  EXPECT_EQ(file.values().at("test.scores"), Json({0.25, -1.5}));
  EXPECT_EQ(file.metadata().count("test.words"), 0u);
}

TEST(IoGguf, RefusesWhatIsNoGguf) {
  refused("GGU", {"cut short"});
  refused("GGUX" + std::string(40, '\0'), {"doesn't begin"});
  refused(file_of("", 0, {}, 0, 1), {"version 1"});
  refused(file_of("", 0, {}, 0, 4), {"version 4"});
  refused(file_of("", 0, {}, 0, 3u << 24), {"big-endian"});
  refused("GGUF" + gguf_raw(uint32_t{3}) + gguf_raw(uint64_t{1} << 60) + gguf_raw(uint64_t{0}), {"claims"});
  refused(
      "GGUF" + gguf_raw(uint32_t{3}) + gguf_raw(uint64_t{0}) + gguf_raw(uint64_t{9}) + std::string(20, '\0'),
      {"claims"});
}

TEST(IoGguf, RefusesBadValues) {
  const auto number = [](const std::string& key, uint32_t v) {
    return gguf_text(key) + gguf_raw(uint32_t{4}) + gguf_raw(v);
  };
  refused(file_of(number("k", 1) + number("k", 2), 2, {}), {"k", "twice"});
  refused(file_of(number("general.alignment", 24), 1, {}), {"general.alignment", "24"});
  refused(file_of(gguf_text("general.alignment") + gguf_raw(uint32_t{8}) + gguf_text("32"), 1, {}),
          {"general.alignment"});
  refused(file_of(gguf_text("k") + gguf_raw(uint32_t{13}) + gguf_raw(uint64_t{0}), 1, {}), {"k", "type 13"});
  refused(
      file_of(gguf_text("k") + gguf_raw(uint32_t{9}) + gguf_raw(uint32_t{9}) + gguf_raw(uint64_t{1}), 1, {}),
      {"k", "type 9"});
  refused(
      file_of(gguf_text("k") + gguf_raw(uint32_t{9}) + gguf_raw(uint32_t{8}) + gguf_raw(uint64_t{1} << 40), 1,
              {}),
      {"k", "claims"});
  refused(file_of(gguf_text("k") + gguf_raw(uint32_t{8}) + gguf_raw(uint64_t{1} << 50), 1, {}), {"claims"});
  refused(file_of(gguf_raw(UINT64_MAX) + "k", 1, {}), {"claims"});
}

TEST(IoGguf, RefusesBadTensors) {
  refused(file_of("", 0, {{"a"}, {"a", {4}, 0, 32}}), {"a", "twice"});
  refused(file_of("", 0, {{"a", {1, 1, 1, 1, 1}}}), {"a", "5 dimensions"});
  refused(file_of("", 0, {{"a", {1ull << 40, 1ull << 40}}}), {"a", "overflows"});
  refused(file_of("", 0, {{"a", {1ull << 62}}}), {"a", "overflows"});
  refused(file_of("", 0, {{"a", {33}, 8}}), {"a", "33", "Q8_0"});
  refused(file_of("", 0, {{"a", {4}, 0, 8}}), {"a", "begins at 8"});
  refused(file_of("", 0, {{"a", {64}}}), {"a", "cut short"});
  refused(file_of("", 0, {{"a", {16}}, {"b", {4}, 0, 32}}), {"b", "overlaps"});
  refused(file_of("", 0, {{"a", {4}, 4}}), {"a", "type 4"});
  refused(file_of("", 0, {{"a", {4}, 99}}), {"a", "type 99"});
  refused(file_of("", 0, {{"a", {256}, 23}}), {"a", "IQ4_XS"}, ErrorCode::unsupported);
  refused(file_of("", 0, {{"a", {64}, 40}}), {"a", "NVFP4"}, ErrorCode::unsupported);
  refused(file_of("", 0, {{std::string(200, 'n')}}), {"200 bytes"});
  const std::string shape = gguf_text("comfy.gguf.orig_shape.a") + gguf_raw(uint32_t{9}) +
                            gguf_raw(uint32_t{5}) + gguf_raw(uint64_t{1});
  refused(file_of(shape + gguf_raw(int32_t{5}), 1, {{"a"}}), {"orig_shape", "4 values"});
  refused(file_of(shape + gguf_raw(int32_t{-4}), 1, {{"a"}}), {"orig_shape"});
}

TEST(IoGguf, EveryPrefixOfAFileIsRefusedOrRead) {
  const std::string whole = read_file(kData + "blocks.gguf");
  const test::TempFolder folder;
  for (size_t n = 0; n < whole.size(); n += n < 2000 ? 7 : 611) {
    const std::string path = folder.file("cut.gguf");
    std::ofstream(path, std::ios::binary) << whole.substr(0, n);
    EXPECT_THROW(GgufFile file(path), Error) << n;
  }
}

}  // namespace
}  // namespace vkflux::io
