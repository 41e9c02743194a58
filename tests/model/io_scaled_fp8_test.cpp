// Scaled fp8 against what torch makes of the same files (tests/data/scaled_fp8), and every rule broken once.
#include "model/io/scaled_fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/io/names.h"
#include "model/io/safetensors.h"
#include "model/load.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

const std::string kData = VKFLUX_SOURCE_DIR "/tests/data/scaled_fp8/";

TEST(IoScaledFp8, BothDialectsAreReadAsTorchDoes) {
  const auto values = open_tensors(kData + "values.safetensors");
  for (const std::string dialect : {"old", "new"}) {
    const auto file = open_tensors(kData + dialect + ".safetensors");
    const NamedTensors named(*file, flux1_names());
    std::vector<Param> params;
    std::vector<Tensor> tensors(8);
    for (const auto& [name, info] : values->tensors()) {
      if (!name.starts_with(dialect + ".")) continue;
      const std::string ours = name.substr(4);
      EXPECT_EQ(named.read_f32(ours), values->read_f32(name)) << name;
      params.push_back({ours, Shape(std::span<const int64_t>(info.shape)), &tensors[params.size()]});
    }
    ASSERT_EQ(named.names().size(), params.size());
    load(params, named, test::device(), std::nullopt);
    for (const Param& p : params) {
      const bool f8 = p.name != "img_in.weight";
      EXPECT_EQ(is_packed(p.tensor->dtype()), f8) << p.name;
      EXPECT_EQ(p.tensor->to_host(), values->read_f32(dialect + "." + p.name)) << p.name;
    }
    load(params, named, test::device());
    for (const Param& p : params)
      EXPECT_EQ(p.tensor->to_host(), values->read_f32(dialect + "." + p.name)) << p.name;
  }
}

struct Change {
  std::string name;
  FileDType dtype = FileDType::f32;
  std::vector<int64_t> shape{};
  std::string bytes{};
};
TensorData tensor(const Change& c) {
  TensorData t{c.name, c.dtype, c.shape, {}};
  int64_t numel = 1;
  for (const int64_t d : c.shape) numel *= d;
  t.bytes.resize(static_cast<size_t>(numel) * size_of(c.dtype), std::byte{0x31});
  if (!c.bytes.empty()) std::memcpy(t.bytes.data(), c.bytes.data(), std::min(t.bytes.size(), c.bytes.size()));
  return t;
}
std::string f32(float v) {
  return {reinterpret_cast<const char*>(&v), sizeof v};
}
Change json(const std::string& text) {
  return {"a.comfy_quant", FileDType::u8, {static_cast<int64_t>(text.size())}, text};
}

void refused(const std::vector<Change>& tensors, const std::vector<std::string>& words,
             ErrorCode code = ErrorCode::format, const std::map<std::string, std::string>& metadata = {}) {
  const test::TempFolder folder;
  const std::string path = folder.file("bad.safetensors");
  std::vector<TensorData> all;
  for (const Change& c : tensors) all.push_back(tensor(c));
  write_safetensors(path, all, metadata);
  const SafetensorsFile file(path);
  std::vector<std::string> told = words;
  told.push_back(path);
  test::expect_error(code, told, [&] { NamedTensors(file, flux1_names()); });
}

TEST(IoScaledFp8, RefusesWhatIsNoScale) {
  const Change weight{"a.weight", FileDType::f8_e4m3, {2, 2}}, marker{"scaled_fp8", FileDType::f8_e4m3, {0}};
  for (const std::string name : {"a.scale_weight", "a.weight_scale"}) {
    for (const float v : {0.0f, -1.0f, NAN, INFINITY})
      refused({weight, {name, FileDType::f32, {}, f32(v)}}, {name, "finite positive"});
    refused({weight, {name, FileDType::f32, {2}, f32(1) + f32(1)}}, {name, "2 numbers"});
    refused({weight, {name, FileDType::f32, {0}}}, {name, "0 numbers"});
    refused({weight, {name, FileDType::i32, {}}}, {name, "I32"});
    refused({weight, {name, FileDType::f8_e4m3, {}}}, {name, "F8_E4M3"});
    refused({{"a.weight", FileDType::bf16, {2, 2}}, {name, FileDType::f32, {}, f32(2)}},
            {"a.weight", "BF16"});
    refused({{"a.weight", FileDType::i8, {2, 2}}, {name, FileDType::f32, {}, f32(2)}}, {"a.weight", "I8"},
            ErrorCode::unsupported);
  }
  refused({weight, marker}, {"a.weight", "no scale"});
  refused({weight, {"b.weight", FileDType::f8_e5m2, {2, 2}}, {"a.weight_scale", FileDType::f32, {}, f32(1)}},
          {"b.weight", "no scale"});
  refused({weight,
           {"a.weight_scale", FileDType::f32, {}, f32(1)},
           {"a.scale_weight", FileDType::f32, {}, f32(1)}},
          {"a.weight", "two scales"});
}

TEST(IoScaledFp8, RefusesOtherFormatsByName) {
  const Change weight{"a.weight", FileDType::f8_e4m3, {2, 2}},
      scale{"a.weight_scale", FileDType::f32, {}, f32(1)};
  for (const char* format : {"nvfp4", "mxfp8", "int8_tensorwise", "int8_blockwise", "something"})
    refused({weight, scale, json(std::string(R"({"format": ")") + format + "\"}")}, {"a", format, "GGUF"},
            ErrorCode::unsupported);
  refused({weight, scale, {"a.weight_scale_2", FileDType::f32, {}, f32(1)}}, {"a", "nvfp4"},
          ErrorCode::unsupported);
  refused({weight, scale, json(R"({"format": "float8_e5m2"})")}, {"a.weight", "F8_E4M3", "float8_e5m2"});
  for (const char* text : {"{", "[]", "null", "{}", R"({"format": null})", R"({"format": 3})", "nan"})
    refused({weight, scale, json(text)}, {"a"});
  refused({weight, scale, {"a.comfy_quant", FileDType::i32, {1}}}, {"a.comfy_quant", "I32"});
}

TEST(IoScaledFp8, RefusesBadMetadata) {
  const Change weight{"a.weight", FileDType::f8_e4m3, {2, 2}},
      scale{"a.weight_scale", FileDType::f32, {}, f32(1)};
  for (const char* text : {"", "{", "[]", "null", "{}", R"({"layers": []})", R"({"layers": {"a": 1}})",
                           R"({"layers": {"a": {"format": "float8_e5m2"}}})"})
    refused({weight, scale}, {}, ErrorCode::format, {{"_quantization_metadata", text}});
  for (const char* layer : {"a", "model.diffusion_model.a"})
    refused({weight, scale}, {"nvfp4"}, ErrorCode::unsupported,
            {{"_quantization_metadata",
              std::string(R"({"layers": {")") + layer + R"(": {"format": "nvfp4"}}})"}});
  refused({weight}, {"a.weight", "no scale"}, ErrorCode::format,
          {{"_quantization_metadata", R"({"layers": {}})"}});
}

TEST(IoScaledFp8, ValuesThatAreNotFiniteAreNamed) {
  const test::TempFolder folder;
  const std::string path = folder.file("x.safetensors");
  write_safetensors(path, {tensor({"img_in.weight", FileDType::f8_e4m3, {2, 3}, "1111\x7f"})});
  const SafetensorsFile file(path);
  const NamedTensors named(file, flux1_names());
  Tensor t;
  for (const WantedType type : {WantedType(), WantedType(DType::f32), WantedType(DType::f8_e4m3)})
    test::expect_error(ErrorCode::format, {path, "img_in.weight"}, [&] {
      load({{"img_in.weight", {2, 3}, &t}}, named, test::device(), type);
    });
}

}  // namespace
}  // namespace vkflux::io
