// Weights that files hold packed stay so on the device.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstring>

#include "autograd/blocks.h"
#include "autograd/ops.h"
#include "model/io/tensor_writer.h"
#include "model/io/values.h"
#include "model/load.h"
#include "model/residency.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"

namespace vkflux {
namespace {

using io::FileDType;

struct Stored {
  std::string name;
  FileDType dtype;
  std::vector<int64_t> shape;
};

// Values that differ from tensor to tensor, encoded.
std::vector<std::byte> bytes_of(const Stored& t) {
  int64_t numel = 1;
  for (const int64_t d : t.shape) numel *= d;
  std::vector<float> values(static_cast<size_t>(numel));
  uint64_t x = t.name.size() * 7919;
  for (float& v : values) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    v = static_cast<float>(static_cast<int64_t>(x) >> 40) * 0x1p-24f;
  }
  std::vector<std::byte> out(file_bytes(io::device_type(t.dtype), numel));
  if (is_packed(io::device_type(t.dtype))) {
    encode_blocks(io::device_type(t.dtype), values, out);
  } else {
    io::convert(FileDType::f32, std::as_bytes(std::span(values)), io::device_type(t.dtype), out);
  }
  return out;
}

std::unique_ptr<io::TensorSource> gguf(const test::TempFolder& folder, const std::vector<Stored>& tensors,
                                       const std::function<void(std::vector<std::byte>&)>& damage = {}) {
  std::vector<io::OutTensor> out;
  for (const Stored& t : tensors) {
    std::vector<std::byte> bytes = bytes_of(t);
    if (damage) damage(bytes);
    out.push_back({t.name, t.dtype, t.shape, [bytes](const io::Sink& sink) { sink(bytes); }});
  }
  io::write_gguf(folder.file("x.gguf"), out, {{"general.architecture", std::string("flux")}});
  return io::open_tensors(folder.file("x.gguf"));
}

// Loads what the file has, as it is, and compares with the host's values.
std::map<std::string, DType> loaded(const io::NamedTensors& named, const StorageRules& rules = {}) {
  std::vector<Param> params;
  std::vector<Tensor> tensors(named.names().size());
  for (const std::string& name : named.names())
    params.push_back({name, Shape(std::span<const int64_t>(named.shape(name))), &tensors[params.size()]});
  load(params, named, test::device(), std::nullopt, rules);
  std::map<std::string, DType> types;
  uint64_t bytes = 0;
  for (const Param& p : params) {
    types[p.name] = p.tensor->dtype();
    bytes += p.tensor->bytes();
    if (p.tensor->dtype() == io::device_type(named.dtype(p.name)) &&
        reads_directly(named, p, p.tensor->dtype())) {
      EXPECT_EQ(p.tensor->to_host(), named.read_f32(p.name)) << p.name;
    }
    // Any bytes of it can be had by themselves.
    if (reads_directly(named, p, p.tensor->dtype())) {
      const std::vector<uint8_t> all = p.tensor->to_host_bytes();
      std::vector<std::byte> part(all.size() / 2);
      const size_t at = is_packed(p.tensor->dtype()) ? all.size() / 3 : all.size() / 2 / 4 * 4;
      read_weight(named, p, p.tensor->dtype(), at, part);
      EXPECT_EQ(std::memcmp(part.data(), all.data() + at, part.size()), 0) << p.name;
    }
  }
  EXPECT_EQ(device_bytes(named, std::nullopt, rules), bytes);
  return types;
}

TEST(PackedLoad, EveryTypeStaysAsItIs) {
  std::vector<Stored> tensors{{"f32", FileDType::f32, {5, 12}},
                              {"f16", FileDType::f16, {5, 12}},
                              {"bf16", FileDType::bf16, {5, 12}},
                              {"vector", FileDType::f16, {12}}};
  for (int i = static_cast<int>(FileDType::q4_0); i <= static_cast<int>(FileDType::q6_k); ++i) {
    const auto t = static_cast<FileDType>(i);
    tensors.push_back({std::string(name(t)), t, {7, 512}});
  }
  const test::TempFolder folder;
  const auto file = gguf(folder, tensors);
  const io::NamedTensors named(*file, {});
  const auto types = loaded(named);
  for (const Stored& t : tensors)
    EXPECT_EQ(types.at(t.name), t.name == "vector" ? DType::f32 : io::device_type(t.dtype)) << t.name;
}

TEST(PackedLoad, RowsAreStackedAndSwapped) {
  const test::TempFolder folder;
  const std::string d = "transformer_blocks.0.attn.", s = "single_transformer_blocks.0.";
  const auto file = gguf(folder, {{d + "to_q.weight", FileDType::q4_k, {4, 256}},
                                  {d + "to_k.weight", FileDType::q4_k, {4, 256}},
                                  {d + "to_v.weight", FileDType::q4_k, {4, 256}},
                                  {d + "add_q_proj.weight", FileDType::q4_k, {4, 256}},
                                  {d + "add_k_proj.weight", FileDType::q4_k, {4, 256}},
                                  {d + "add_v_proj.weight", FileDType::q6_k, {4, 256}},
                                  {s + "attn.to_q.weight", FileDType::q8_0, {2, 32}},
                                  {s + "attn.to_k.weight", FileDType::q8_0, {2, 32}},
                                  {s + "attn.to_v.weight", FileDType::bf16, {2, 32}},
                                  {s + "proj_mlp.weight", FileDType::f16, {9, 32}},
                                  {"norm_out.linear.weight", FileDType::q5_0, {6, 64}}});
  const io::NamedTensors named(*file, io::flux1_names());
  const auto types = loaded(named);
  EXPECT_EQ(types.at("double_blocks.0.img_attn.qkv.weight"), DType::q4_k);
  EXPECT_EQ(types.at("double_blocks.0.txt_attn.qkv.weight"), DType::q6_k);
  EXPECT_EQ(types.at("single_blocks.0.linear1.weight"), DType::f32);
  EXPECT_EQ(types.at("final_layer.adaLN_modulation.1.weight"), DType::q5_0);
  EXPECT_NE(named.mixed().find("2 weights"), std::string::npos) << named.mixed();
}

TEST(PackedLoad, TablesAndOddRowsBecomeSixteenBits) {
  const test::TempFolder folder;
  const auto file =
      gguf(folder, {{"shared.weight", FileDType::q8_0, {9, 64}}, {"wi.weight", FileDType::q8_0, {9, 64}}});
  const auto types = loaded(io::NamedTensors(*file, {}), {{}, {}, {"shared."}});
  EXPECT_EQ(types.at("shared.weight"), DType::f16);
  EXPECT_EQ(types.at("wi.weight"), DType::q8_0);
}

TEST(PackedLoad, ScalesThatAreNotFiniteAreErrors) {
  const test::TempFolder folder;
  const auto file =
      gguf(folder, {{"img_in.weight", FileDType::q8_0, {3, 64}}}, [](std::vector<std::byte>& bytes) {
        bytes[3 * 34] = std::byte{0};
        bytes[3 * 34 + 1] = std::byte{0x7c};  // infinity
      });
  const io::NamedTensors named(*file, {});
  test::expect_error(ErrorCode::format, {"x.gguf", "img_in.weight", "block 3"}, [&] { loaded(named); });
}

}  // namespace
}  // namespace vkflux
