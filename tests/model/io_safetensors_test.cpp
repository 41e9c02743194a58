// safetensors: round trips, every rule of the format broken once, and decoding of every code of the small
// floats.
#include "model/io/safetensors.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "autograd/tensor.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::expect_error;

std::string file_bytes(const std::string& header, size_t data_bytes) {
  const uint64_t n = header.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);
  return out + header + std::string(data_bytes, '\1');
}

/// Opening a file of these bytes fails with Error format; the message has the path and these words.
void refused(const std::string& bytes, std::vector<std::string> words, ErrorCode code = ErrorCode::format) {
  const test::TempFolder folder;
  const std::string path = folder.file("bad.safetensors");
  std::ofstream(path, std::ios::binary) << bytes;
  words.push_back(path);
  expect_error(code, words, [&] { SafetensorsFile file(path); });
}

void refused_header(const std::string& header, size_t data_bytes, std::vector<std::string> words) {
  SCOPED_TRACE(header);
  refused(file_bytes(header, data_bytes), std::move(words));
}

TEST(IoSafetensors, RoundTrip) {
  const test::TempFolder folder;
  const std::string path = folder.file("x.safetensors");
  const std::vector<float> values{1, -2.5f, 3e-5f, 0, 1e20f, 7};
  write_safetensors(path,
                    {tensor_data("z.weight", {2, 3}, values),
                     tensor_data("half", {6}, values, FileDType::f16),
                     tensor_data("a \"quoted\" \u00e9", {}, std::span(values).first(1), FileDType::bf16),
                     tensor_data("none", {0, 4}, {}),
                     {"ids", FileDType::i64, {2}, std::vector<std::byte>(16)}},
                    {{"format", "pt"}, {"note", "line\nbreak"}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.metadata().at("note"), "line\nbreak");
  EXPECT_EQ(file.read_f32("z.weight"), values);
  EXPECT_EQ(file.info("z.weight").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.read_f32("a \"quoted\" \u00e9"), (std::vector<float>{1}));
  EXPECT_TRUE(file.read_f32("none").empty());
  EXPECT_EQ(file.read_i32("ids"), (std::vector<int32_t>{0, 0}));
  EXPECT_EQ(file.read_f32("half")[4], 65504.0f);  // 16-bit stores saturate
  std::vector<std::byte> part(8);
  file.read(file.info("z.weight"), 4, part);
  EXPECT_EQ(std::memcmp(part.data(), &values[1], 8), 0);
  const std::string bytes = read_file(path);
  uint64_t n = 0;
  std::memcpy(&n, bytes.data(), 8);
  EXPECT_EQ(n % 8, 0u);
}

TEST(IoSafetensors, BytesDependOnTheTensorsOnly) {
  const test::TempFolder folder;
  const std::vector<float> one{1}, two{2};
  write_safetensors(folder.file("1"), {tensor_data("a", {1}, one), tensor_data("b", {1}, two)});
  write_safetensors(folder.file("2"), {tensor_data("b", {1}, two), tensor_data("a", {1}, one)});
  EXPECT_EQ(read_file(folder.file("1")), read_file(folder.file("2")));
}

TEST(IoSafetensors, AnEmptyFileOfTensors) {
  const test::TempFolder folder;
  write_safetensors(folder.file("x"), {});
  EXPECT_TRUE(SafetensorsFile(folder.file("x")).tensors().empty());
}

TEST(IoSafetensors, WriterRefusesWhatTheReaderWould) {
  const test::TempFolder folder;
  const std::string path = folder.file("x");
  const std::vector<float> v{1, 2};
  const auto write = [&](const std::vector<TensorData>& t) {
    return [&path, t] { write_safetensors(path, t); };
  };
  expect_error(ErrorCode::invalid_argument, {path, "a twice"},
               write({tensor_data("a", {2}, v), tensor_data("a", {2}, v)}));
  expect_error(ErrorCode::invalid_argument, {path, "tensor a", "[3]"}, write({tensor_data("a", {3}, v)}));
  expect_error(ErrorCode::invalid_argument, {"tensor a"}, write({tensor_data("a", {-2, -1}, v)}));
  expect_error(ErrorCode::invalid_argument, {"reserves"}, write({tensor_data("__metadata__", {2}, v)}));
  expect_error(ErrorCode::invalid_argument, {"UTF-8"}, write({tensor_data("\xff", {2}, v)}));
  expect_error(ErrorCode::invalid_argument, {"I32"}, [&] { tensor_data("a", {2}, v, FileDType::i32); });
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(IoSafetensors, RefusesBadLengths) {
  refused("", {"too short"});
  refused("1234567", {"too short"});
  refused(std::string(8, '\0') + "{}", {"header"});
  refused(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10), {"header"});
  refused(std::string("\3\0\0\0\0\0\0\0{}", 10), {"header", "3"});  // one byte more than the file has
  refused(file_bytes("[]", 0), {"no JSON object"});
  refused(file_bytes(" {}", 0), {"no JSON object"});
}

TEST(IoSafetensors, RefusesBadJson) {
  refused_header(R"({"a":)", 0, {"bad JSON"});
  refused_header(R"({}x)", 0, {"bad JSON"});
  refused_header("{\"\xff\":1}", 0, {"bad JSON"});
  refused_header(R"({"a":3})", 0, {"tensor a", "object is expected"});
  refused_header(R"({"a":[]})", 0, {"tensor a", "object is expected"});
  refused_header(R"({"a":null})", 0, {"tensor a", "object is expected"});
  refused_header(
      R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
      8, {"tensor a", "appears twice"});
  refused_header(R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4,
                 {"tensor a", "shape appears twice"});
  refused_header(R"({"__metadata__":{"k":1}})", 0, {"metadata k", "string is expected"});
  refused_header(R"({"__metadata__":{"k":"1","k":"2"}})", 0, {"metadata key k appears twice"});
  refused_header(R"({"__metadata__":{},"__metadata__":{}})", 0, {"__metadata__ appears twice"});
  refused_header(R"({"__metadata__":"x"})", 0, {"object is expected"});
  refused_header("{\"a\":" + std::string(50000, '['), 0, {"tensor a"});
}

TEST(IoSafetensors, RefusesBadEntries) {
  const auto entry = [](const char* dtype, const char* shape, const char* offsets, size_t data,
                        const char* word) {
    refused_header(std::string(R"({"blk.w":{"dtype":)") + dtype + ",\"shape\":" + shape +
                       ",\"data_offsets\":" + offsets + "}}",
                   data, {"tensor blk.w", word});
  };
  entry(R"("Q4_K")", "[1]", "[0,4]", 4, "dtype Q4_K isn't supported");
  entry(R"("F8_E8M0")", "[4]", "[0,4]", 4, "dtype F8_E8M0 isn't supported");
  entry("3", "[1]", "[0,4]", 4, "dtype");
  entry(R"("F32")", "[-1]", "[0,4]", 4, "-1");
  entry(R"("F32")", "[1.0]", "[0,4]", 4, "1.0");
  entry(R"("F32")", R"(["1"])", "[0,4]", 4, "shape");
  entry(R"("F32")", "[[1]]", "[0,4]", 4, "shape");
  entry(R"("F32")", "1", "[0,4]", 4, "shape");
  entry(R"("F32")", "[1,1,1,1,1,1,1,1,1]", "[0,4]", 4, "more than 8");
  entry(R"("F32")", "[4294967296,4294967296]", "[0,4]", 4, "overflows");
  entry(R"("F32")", "[9223372036854775808]", "[0,4]", 4, "too large");
  entry(R"("F32")", "[99999999999999999999999]", "[0,4]", 4, "shape");
  entry(R"("F32")", "[4611686018427387904]", "[0,0]", 0, "overflows");  // 2^62 * 4 wraps to 0
  entry(R"("F32")", "[1]", "[4,0]", 4, "outside");
  entry(R"("F32")", "[2]", "[0,8]", 4, "outside");
  entry(R"("F32")", "[1]", "[0,18446744073709551615]", 4, "outside");
  entry(R"("F32")", "[2]", "[0,4]", 4, "needs 8");
  entry(R"("F16")", "[2]", "[0,8]", 8, "needs 4");
  entry(R"("F32")", "[1]", "[0]", 4, "pair");
  entry(R"("F32")", "[1]", "[0,4,4]", 4, "more than 2");
  entry(R"("F32")", "[1]", "[0,-4]", 4, "-4");
  entry(R"("F32")", "[1]", "4", 4, "data_offsets");
  entry(R"("F32","x":{})", "[1]", "[0,4]", 4, "unknown field x");
  refused_header(R"({"blk.w":{"dtype":"F32","shape":[1]}})", 4, {"tensor blk.w", "data_offsets is missing"});
  refused_header(R"({"blk.w":{"shape":[1],"data_offsets":[0,4]}})", 4, {"tensor blk.w", "dtype is missing"});
}

TEST(IoSafetensors, RefusesRangesThatDontTile) {
  const auto two = [](const char* a, const char* b, size_t data, std::vector<std::string> words) {
    refused_header(std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + a +
                       R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                   data, std::move(words));
  };
  two("[0,4]", "[2,6]", 6, {"tensor b", "overlaps"});
  two("[0,4]", "[0,4]", 4, {"overlaps"});
  two("[0,4]", "[5,9]", 9, {"tensor b", "gap"});
  two("[1,5]", "[5,9]", 9, {"tensor a", "gap"});
  two("[0,4]", "[4,8]", 9, {"1 bytes follow"});
  two("[0,4]", "[4,8]", 7, {"tensor b", "outside"});  // truncated
}

TEST(IoSafetensors, RefusesOtherFormatsByNameAndByContents) {
  const test::TempFolder folder;
  for (const char* name : {"x.ckpt", "x.pt", "x.pth", "x.bin"}) {
    expect_error(ErrorCode::unsupported, {name, "pickle", ".safetensors"},
                 [&] { SafetensorsFile f(folder.file(name)); });
  }
  expect_error(ErrorCode::unsupported, {"ONNX"}, [&] { SafetensorsFile f(folder.file("x.onnx")); });
  refused(std::string("GGUF\3\0\0\0\1\0\0\0", 12), {"GGUF"}, ErrorCode::unsupported);
  refused(std::string("PK\3\4\0\0\0\0\0\0\0\0", 12), {"pickle"}, ErrorCode::unsupported);
  refused("\x80\x02}q\1(abcdefgh", {"pickle"}, ErrorCode::unsupported);
}

TEST(IoSafetensors, SaysWhatLiesInAModelsPlace) {
  refused("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {"Git LFS"});
  refused("\n<!DOCTYPE html><html></html>", {"HTML"});
  refused("{\"_class_name\": \"FluxPipeline\"}", {"JSON"});
  refused("\x89PNG\r\n\x1a\n..........", {"picture"});
}

TEST(IoSafetensors, ReadsAreChecked) {
  const test::TempFolder folder;
  const std::string path = folder.file("x.safetensors");
  const std::vector<float> v{1, 2};
  write_safetensors(path, {tensor_data("layer.weight", {2}, v),
                           {"n", FileDType::i64, {1}, std::vector<std::byte>(8, std::byte{0x7f})}});
  const SafetensorsFile file(path);
  expect_error(ErrorCode::format, {path, "layer.wieght", "nearest: layer.weight"},
               [&] { file.read_f32("layer.wieght"); });
  expect_error(ErrorCode::format, {path, "tensor n", "I64"}, [&] { file.read_f32("n"); });
  expect_error(ErrorCode::format, {"layer.weight", "F32"}, [&] { file.read_i32("layer.weight"); });
  expect_error(ErrorCode::format, {"tensor n", "32 bits"}, [&] { file.read_i32("n"); });
  std::vector<std::byte> out(5);
  expect_error(ErrorCode::invalid_argument, {"beyond"},
               [&] { file.read(file.info("layer.weight"), 4, out); });
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 12);
  expect_error(ErrorCode::format, {path, "ends early"}, [&] { file.read_f32("layer.weight"); });
}

// The value of a code with `exponent` and `mantissa` bits; the two formats with infinities use the top
// exponent.
double small_float(uint32_t code, int exponent, int mantissa) {
  const int bias = (1 << (exponent - 1)) - 1, e = static_cast<int>(code >> mantissa) & ((1 << exponent) - 1);
  const double m = static_cast<double>(code & ((1u << mantissa) - 1)) / (1 << mantissa);
  const double value = e ? std::ldexp(1 + m, e - bias) : std::ldexp(m, 1 - bias);
  return code >> (exponent + mantissa) ? -value : value;
}

TEST(IoSafetensors, DecodesEveryF16AndBf16) {
  for (uint32_t code = 0; code < 0x10000; ++code) {
    const auto h = static_cast<uint16_t>(code);
    const auto bytes = std::as_bytes(std::span(&h, 1));
    const float f16 = decode_f32(FileDType::f16, bytes)[0], bf16 = decode_f32(FileDType::bf16, bytes)[0];
    if ((code & 0x7c00) == 0x7c00) {
      EXPECT_EQ(std::isnan(f16), (code & 0x3ff) != 0) << code;
      EXPECT_EQ(std::isinf(f16), (code & 0x3ff) == 0) << code;
    } else {
      ASSERT_EQ(static_cast<double>(f16), small_float(code, 5, 10)) << code;
      ASSERT_EQ(to_f16(f16), h) << code;
    }
    if ((code & 0x7f80) == 0x7f80) {
      EXPECT_FALSE(std::isfinite(bf16)) << code;
    } else {
      ASSERT_EQ(static_cast<double>(bf16), small_float(code, 8, 7)) << code;
      ASSERT_EQ(to_bf16(bf16), h) << code;
    }
  }
}

TEST(IoSafetensors, RoundsToNearestEven) {
  for (uint32_t code = 0; code < 0x7bff; ++code) {
    const float low = from_f16(static_cast<uint16_t>(code)), high = from_f16(static_cast<uint16_t>(code + 1));
    const float middle = low + (high - low) / 2;  // exact in f32
    ASSERT_EQ(to_f16(middle), code + (code & 1)) << code;
    ASSERT_EQ(to_f16(std::nextafter(middle, 0.0f)), code) << code;
    ASSERT_EQ(to_f16(std::nextafter(middle, 1e9f)), code + 1) << code;
  }
}

TEST(IoSafetensors, DecodesEveryF8) {
  for (uint32_t code = 0; code < 256; ++code) {
    const auto b = static_cast<std::byte>(code);
    const float e4m3 = decode_f32(FileDType::f8_e4m3, {&b, 1})[0],
                e5m2 = decode_f32(FileDType::f8_e5m2, {&b, 1})[0];
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(e4m3)) << code;
    } else {
      EXPECT_EQ(static_cast<double>(e4m3), small_float(code, 4, 3)) << code;
    }
    if ((code & 0x7c) == 0x7c) {
      EXPECT_EQ(std::isinf(e5m2), (code & 3) == 0) << code;
    } else {
      EXPECT_EQ(static_cast<double>(e5m2), small_float(code, 5, 2)) << code;
    }
  }
  const auto top = std::byte{0x7e};
  EXPECT_EQ(decode_f32(FileDType::f8_e4m3, {&top, 1})[0], 448.0f);
}

TEST(IoSafetensors, DecodesF64) {
  const double values[] = {0.1, -1e300};
  EXPECT_EQ(decode_f32(FileDType::f64, std::as_bytes(std::span(values))),
            (std::vector<float>{0.1f, -INFINITY}));
}

}  // namespace
}  // namespace vkflux::io
