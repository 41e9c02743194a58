// Parts of the miniature and made-up ones through files of every kind.
#include "model/convert.h"

#include <gtest/gtest.h>

#include "autograd/blocks.h"
#include "model/convert_lora.h"
#include "model/io/gguf.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

const std::string kEmoji = VKFLUX_SOURCE_DIR "/models/emoji/";

Converted converted(const std::string& from, const std::string& to, const ConvertOptions& options,
                    const std::string& wanted = "") {
  const auto file = io::open_tensors(from);
  const ModelPartFile part = part_of_file(*file, wanted);
  const io::NamedTensors named(*file, part.names);
  return convert(part, *weights_of(named), to, options);
}

TEST(Convert, ThereAndBackInEveryLayout) {
  const test::TempFolder folder;
  for (const std::string part : {"transformer", "text_encoder", "text_encoder_2", "vae"}) {
    const std::string bfl = folder.file(part + ".safetensors"),
                      back = folder.file(part + ".back.safetensors");
    converted(kEmoji + part, bfl, {{}, "bfl"});
    converted(bfl, back, {{}, "diffusers"});
    const auto first = io::open_tensors(kEmoji + part), last = io::open_tensors(back);
    for (const auto& [name, info] : first->tensors()) {
      ASSERT_TRUE(last->has(name)) << name;
      EXPECT_EQ(last->info(name).dtype, info.dtype) << name;
      EXPECT_EQ(last->info(name).shape, info.shape) << name;
      EXPECT_EQ(last->read_bytes(name), first->read_bytes(name)) << name;
    }
    EXPECT_EQ(first->tensors().size(), last->tensors().size());
  }
}

TEST(Convert, MergesLoras) {
  const test::TempFolder folder;
  const std::string module = "double_blocks.0.img_mlp.0", lora = folder.file("lora.safetensors"),
                    out = folder.file("merged.safetensors");
  const auto file = io::open_tensors(kEmoji + "transformer");
  const ModelPartFile part = part_of_file(*file, "");
  const io::NamedTensors named(*file, part.names);
  const std::vector<int64_t> shape = named.shape(module + ".weight");
  const auto tensor = [](const std::string& name, const std::vector<int64_t>& s, float value) {
    return io::tensor_data(name, s, std::vector<float>(static_cast<size_t>(s[0] * s[1]), value));
  };
  io::write_safetensors(lora, {tensor(module + ".lora_A.weight", {2, shape[1]}, 0.5f),
                               tensor(module + ".lora_B.weight", {shape[0], 2}, 0.25f)});
  const LoraSet loras({{lora, -2}}, part.lora);
  const auto base = weights_of(named);
  convert(part, *merged_weights(*base, loras, part.name), out, {DType::f32, "bfl"});
  const auto merged = io::open_tensors(out);
  for (const Param& p : part.params) {
    std::vector<float> want = named.read_f32(p.name);
    if (p.name == module + ".weight")
      for (float& v : want) v -= 0.5f;
    EXPECT_EQ(merged->read_f32(p.name), want) << p.name;
  }
}

TEST(Convert, ToBlocksByTheRules) {
  const test::TempFolder folder;
  const std::string out = folder.file("t.gguf");
  const Converted c = converted(kEmoji + "transformer", out, {DType::q4_k, "bfl", true});
  EXPECT_NE(c.remarks.at(0).find("kept in q8_0 instead of q4_k"), std::string::npos);
  const io::GgufFile file(out);
  EXPECT_EQ(file.metadata().at("general.architecture"), "flux");
  EXPECT_EQ(file.metadata().at("general.quantization_version"), "2");
  EXPECT_EQ(file.metadata().at("general.file_type"), "14");
  EXPECT_EQ(file.info("img_in.weight").dtype, io::FileDType::f16);
  EXPECT_EQ(file.info("img_in.bias").dtype, io::FileDType::f32);
  EXPECT_EQ(file.info("double_blocks.0.img_mod.lin.weight").dtype, io::FileDType::q8_0);
  EXPECT_EQ(file.info("double_blocks.0.img_mlp.2.weight").dtype, io::FileDType::q4_k);
  // What is written are the bytes of the encoder, and converting again as it is stored keeps them.
  const auto source = io::open_tensors(kEmoji + "transformer");
  const io::NamedTensors named(*source, io::flux1_names());
  const std::vector<float> values = named.read_f32("double_blocks.0.img_mlp.2.weight");
  std::vector<std::byte> want(file_bytes(DType::q4_k, static_cast<int64_t>(values.size())));
  encode_blocks(DType::q4_k, values, want);
  EXPECT_EQ(file.read_bytes("double_blocks.0.img_mlp.2.weight"), want);
  converted(out, folder.file("again.gguf"), {{}, "bfl", true});
  const io::GgufFile again(folder.file("again.gguf"));
  for (const auto& [name, info] : file.tensors())
    EXPECT_EQ(again.read_bytes(name), file.read_bytes(name)) << name;
}

TEST(Convert, EncodersInGgufHaveTheNamesOfLlamaCpp) {
  const test::TempFolder folder;
  const std::string out = folder.file("t5.gguf");
  converted(kEmoji + "text_encoder_2", out, {DType::q8_0, "bfl", true});
  const io::GgufFile file(out);
  EXPECT_EQ(file.metadata().at("general.architecture"), "t5encoder");
  for (const char* name : {"token_embd.weight", "enc.output_norm.weight", "enc.blk.0.attn_q.weight",
                           "enc.blk.0.attn_rel_b.weight", "enc.blk.1.ffn_down.weight"})
    EXPECT_TRUE(file.has(name)) << name;
  EXPECT_EQ(part_of_file(file, "").name, "text_encoder_2");
}

TEST(Convert, ToFp8AndScaledFp8ToOthers) {
  const test::TempFolder folder;
  const std::string out = folder.file("t.safetensors");
  converted(kEmoji + "transformer", out, {DType::f8_e4m3, "diffusers"});
  const auto file = io::open_tensors(out);
  EXPECT_EQ(file->info("transformer_blocks.0.attn.to_q.weight").dtype, io::FileDType::f8_e4m3);
  EXPECT_EQ(file->info("x_embedder.weight").dtype, io::FileDType::f16);
  test::expect_error(ErrorCode::invalid_argument, {"GGUF", "fp8"}, [&] {
    converted(kEmoji + "transformer", folder.file("x.gguf"), {DType::f8_e4m3, "bfl", true});
  });
  test::expect_error(ErrorCode::invalid_argument, {"F8_E4M3", "q8_0"}, [&] {
    converted(out, folder.file("x.gguf"), {{}, "bfl", true});
  });
  test::expect_error(ErrorCode::invalid_argument, {"safetensors", "q6_k"}, [&] {
    converted(kEmoji + "transformer", folder.file("x.safetensors"), {DType::q6_k, "bfl"});
  });
}

TEST(Convert, AnInterruptLeavesNothing) {
  const test::TempFolder folder;
  ConvertOptions options{DType::q8_0, "bfl", true};
  options.progress = [](uint64_t, uint64_t) { request_interrupt(); };
  test::expect_error(ErrorCode::cancelled, {},
                     [&] { converted(kEmoji + "transformer", folder.file("x.gguf"), options); });
  clear_interrupt();
  EXPECT_TRUE(io::folder_entries(folder.path()).empty());
}

TEST(Convert, MadeUpWeightsDependOnNameAndPlaceAlone) {
  const ModelPartFile part = made_up_part("flux1-dev", {1, 1});
  const auto source = random_weights(part, 7);
  const auto p = std::find_if(part.params.begin(), part.params.end(),
                              [](const Param& x) { return x.name == "double_blocks.0.img_attn.qkv.weight"; });
  ASSERT_NE(p, part.params.end());
  EXPECT_EQ(p->shape, (Shape{9216, 3072}));
  std::vector<float> all(1000), some(501);
  source->values(*p, 3000, all);
  source->values(*p, 3013, some);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin() + 13));
  for (const float v : all) EXPECT_LT(std::abs(v), 0.1f);
  EXPECT_EQ(made_up_part("t5xxl", {}).params.size(), made_up_part("t5xxl", {24, 0}).params.size());
  EXPECT_EQ(made_up_part("flux2-klein-4b", {}).params.size(), 149u);
  EXPECT_EQ(made_up_part("flux2-dev", {1, 1}).params.size(), 11u + 12 + 4);
  EXPECT_EQ(made_up_part("flux1-schnell", {}).params.size() + 4, made_up_part("flux1-dev", {}).params.size());
}

TEST(Convert, RefusesWhatItDoesNotKnow) {
  const test::TempFolder folder;
  io::write_safetensors(folder.file("x.safetensors"), {io::tensor_data("a", {1}, std::vector<float>{1})});
  const auto file = io::open_tensors(folder.file("x.safetensors"));
  test::expect_error(ErrorCode::format, {"x.safetensors", "no transformer"},
                     [&] { part_of_file(*file, ""); });
  const auto vae = io::open_tensors(kEmoji + "vae");
  test::expect_error(ErrorCode::invalid_argument, {"no part transformer", "vae"},
                     [&] { part_of_file(*vae, "transformer"); });
}

}  // namespace
}  // namespace vkflux
