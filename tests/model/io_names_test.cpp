// The layout tables: what is saved in a foreign layout loads back as ours, and files that don't fit are
// refused with the names that are at fault.
#include "model/io/names.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::expect_error;
using Shape = std::vector<int64_t>;

size_t count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), size_t{1},
                         [](size_t n, int64_t d) { return n * static_cast<size_t>(d); });
}

/// Values that differ between tensors and rows.
std::vector<float> values_of(const std::string& name, const Shape& shape) {
  const auto seed = static_cast<float>(std::accumulate(name.begin(), name.end(), 0) % 97);
  std::vector<float> v(count(shape));
  for (size_t i = 0; i < v.size(); ++i) v[i] = seed + static_cast<float>(i) / 64;
  return v;
}

class IoNames : public ::testing::Test {
 protected:
  SafetensorsFile file(const NamedShapes& tensors, const std::string& prefix = "") {
    std::vector<TensorData> data;
    for (const auto& [n, s] : tensors) data.push_back(tensor_data(prefix + n, s, values_of(n, s)));
    write_safetensors(path_, data);
    return SafetensorsFile(path_);
  }
  void refused(const NamedShapes& tensors, const NameTable& table, std::vector<std::string> words,
               ErrorCode code = ErrorCode::format) {
    const SafetensorsFile c = file(tensors);
    words.push_back(path_);
    expect_error(code, words, [&] { NamedTensors named(c, table); });
  }
  test::TempFolder folder_;
  const std::string path_ = folder_.file("x.safetensors");
};

constexpr int64_t kHidden = 4, kMlp = 12;

/// FLUX.1's tensors at hidden width 4, one block of each kind (names as published).
NamedShapes flux_tensors() {
  NamedShapes t;
  const auto linear = [&](const std::string& n, int64_t out, int64_t in) {
    t.push_back({n + ".weight", {out, in}});
    t.push_back({n + ".bias", {out}});
  };
  const int64_t h = kHidden, m = kMlp;
  linear("img_in", h, 8);
  linear("txt_in", h, 6);
  for (const char* e : {"time_in", "vector_in", "guidance_in"}) {
    linear(std::string(e) + ".in_layer", h, 5);
    linear(std::string(e) + ".out_layer", h, h);
  }
  for (const char* stream : {"img", "txt"}) {
    const std::string b = std::string("double_blocks.0.") + stream;
    linear(b + "_mod.lin", 6 * h, h);
    linear(b + "_attn.qkv", 3 * h, h);
    linear(b + "_attn.proj", h, h);
    linear(b + "_mlp.0", m, h);
    linear(b + "_mlp.2", h, m);
    t.push_back({b + "_attn.norm.query_norm.scale", {2}});
    t.push_back({b + "_attn.norm.key_norm.scale", {2}});
  }
  linear("single_blocks.0.modulation.lin", 3 * h, h);
  linear("single_blocks.0.linear1", 3 * h + m, h);
  linear("single_blocks.0.linear2", h, h + m);
  t.push_back({"single_blocks.0.norm.query_norm.scale", {2}});
  t.push_back({"single_blocks.0.norm.key_norm.scale", {2}});
  linear("final_layer.adaLN_modulation.1", 2 * h, h);
  linear("final_layer.linear", 8, h);
  return t;
}

std::vector<TensorData> foreign(const NamedShapes& ours, const NameTable& table) {
  std::vector<TensorData> out;
  for (const auto& [n, s] : ours) {
    std::vector<int64_t> rows;
    if (n.find("linear1") != std::string::npos) rows = {kHidden, kHidden, kHidden, kMlp};
    for (auto& t : to_foreign(n, s, values_of(n, s), table, FileDType::f32, rows))
      out.push_back(std::move(t));
  }
  return out;
}

void expect_same(const NamedTensors& named, const NamedShapes& ours) {
  named.check(ours);
  for (const auto& [n, s] : ours) {
    EXPECT_EQ(named.shape(n), s) << n;
    const std::vector<float> want = values_of(n, s);
    EXPECT_EQ(named.read_f32(n), want) << n;
    // In pieces and as another type.
    std::vector<uint16_t> half(want.size());
    for (size_t at = 0; at < half.size(); at += 7) {
      named.read(n, DType::bf16, at,
                 std::as_writable_bytes(std::span(half).subspan(at, std::min<size_t>(7, half.size() - at))));
    }
    for (size_t i = 0; i < want.size(); ++i) ASSERT_EQ(half[i], to_bf16(want[i])) << n;
  }
  EXPECT_EQ(named.names().size(), ours.size());
}

TEST_F(IoNames, FluxReadsItsOwnNamesBareAndPrefixed) {
  const NamedShapes ours = flux_tensors();
  expect_same(NamedTensors(file(ours), flux1_names()), ours);
  const SafetensorsFile prefixed = file(ours, "model.diffusion_model.");
  expect_same(NamedTensors(prefixed, flux1_names()), ours);
}

TEST_F(IoNames, APrefixHidesTheRest) {
  std::vector<TensorData> data;
  const NamedShapes ours = flux_tensors();
  for (const auto& [n, s] : ours)
    data.push_back(tensor_data("model.diffusion_model." + n, s, values_of(n, s)));
  data.push_back(tensor_data("vae.decoder.conv_in.weight", {1}, std::vector<float>{1}));
  write_safetensors(path_, data);
  const SafetensorsFile c(path_);
  expect_same(NamedTensors(c, flux1_names()), ours);
}

TEST_F(IoNames, FluxThroughTheDiffusersLayout) {
  const NamedShapes ours = flux_tensors();
  write_safetensors(path_, foreign(ours, flux1_names()));
  const SafetensorsFile c(path_);
  EXPECT_EQ(c.tensors().size(),
            ours.size() + 4 * 2 + 3 * 2);  // qkv twice in two parts more, linear1 in three more
  EXPECT_EQ(c.info("transformer_blocks.0.attn.add_k_proj.weight").shape, (Shape{kHidden, kHidden}));
  EXPECT_EQ(c.info("single_transformer_blocks.0.proj_mlp.bias").shape, (Shape{kMlp}));
  EXPECT_FALSE(c.has("img_in.weight"));
  expect_same(NamedTensors(c, flux1_names()), ours);
}

TEST_F(IoNames, FinalModulationSwapsItsHalves) {
  const Shape shape{2, 1};
  const auto out =
      to_foreign("final_layer.adaLN_modulation.1.weight", shape, {10, 20}, flux1_names(), FileDType::f32);
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].name, "norm_out.linear.weight");
  EXPECT_EQ(decode_f32(FileDType::f32, out[0].bytes), (std::vector<float>{20, 10}));
}

TEST_F(IoNames, NormVectorsMayBeCalledWeight) {
  const SafetensorsFile c = file({{"double_blocks.3.txt_attn.norm.key_norm.weight", {2}},
                                  {"single_blocks.0.norm.query_norm.weight", {2}}});
  const NamedTensors named(c, flux1_names());
  EXPECT_TRUE(named.has("double_blocks.3.txt_attn.norm.key_norm.scale"));
  EXPECT_TRUE(named.has("single_blocks.0.norm.query_norm.scale"));
}

/// An autoencoder's names with `levels` levels, as published.
NamedShapes vae_tensors(int64_t levels) {
  NamedShapes t;
  const auto both = [&](const std::string& n, const Shape& s) {
    t.push_back({n + ".weight", s});
    t.push_back({n + ".bias", {s[0]}});
  };
  const auto block = [&](const std::string& n, bool shortcut) {
    both(n + ".norm1", {2});
    both(n + ".conv1", {2, 2, 3, 3});
    both(n + ".norm2", {2});
    both(n + ".conv2", {2, 2, 3, 3});
    if (shortcut) both(n + ".nin_shortcut", {2, 2, 1, 1});
  };
  for (const char* half : {"encoder", "decoder"}) {
    const bool up = half[0] == 'd';
    const std::string h = half, way = up ? ".up." : ".down.";
    both(h + ".conv_in", {2, 3, 3, 3});
    for (int64_t level = 0; level < levels; ++level) {
      const std::string l = h + way + std::to_string(level);
      for (int b = 0; b < (up ? 3 : 2); ++b) block(l + ".block." + std::to_string(b), b == 0 && level == 1);
      if (level != (up ? 0 : levels - 1))
        both(l + (up ? ".upsample.conv" : ".downsample.conv"), {2, 2, 3, 3});
    }
    block(h + ".mid.block_1", false);
    block(h + ".mid.block_2", false);
    both(h + ".mid.attn_1.norm", {2});
    for (const char* m : {"q", "k", "v", "proj_out"}) both(h + ".mid.attn_1." + m, {2, 2});
    both(h + ".norm_out", {2});
    both(h + ".conv_out", {3, 2, 3, 3});
  }
  return t;
}

TEST_F(IoNames, AutoencoderThroughTheDiffusersLayout) {
  for (const int64_t levels : {2, 3, 4}) {
    const NamedShapes ours = vae_tensors(levels);
    write_safetensors(path_, foreign(ours, vae_names(levels)));
    const SafetensorsFile c(path_);
    const std::string top = "decoder.up_blocks." + std::to_string(levels - 1);
    EXPECT_TRUE(c.has("decoder.up_blocks.0.upsamplers.0.conv.weight"));
    EXPECT_FALSE(c.has(top + ".upsamplers.0.conv.weight"));  // the last of diffusers' is our level 0
    EXPECT_TRUE(c.has("encoder.mid_block.attentions.0.to_out.0.bias"));
    EXPECT_TRUE(c.has("decoder.conv_norm_out.weight"));
    expect_same(NamedTensors(c, vae_names(levels)), ours);
  }
}

TEST_F(IoNames, AutoencoderReadsItsOwnNames) {
  const NamedShapes ours = vae_tensors(3);
  for (const char* prefix : {"", "vae.", "first_stage_model."}) {
    const SafetensorsFile c = file(ours, prefix);
    expect_same(NamedTensors(c, vae_names(3)), ours);
  }
}

TEST_F(IoNames, AutoencoderAttentionOfAnyRank) {
  for (const Shape& s : {Shape{2, 2}, Shape{2, 2, 1}, Shape{2, 2, 1, 1}}) {
    const SafetensorsFile c = file({{"encoder.mid.attn_1.q.weight", s}});
    NamedTensors(c, vae_names(4)).check({{"encoder.mid.attn_1.q.weight", {2, 2}}});
    NamedTensors(c, vae_names(4)).check({{"encoder.mid.attn_1.q.weight", {2, 2, 1, 1}}});
  }
}

TEST_F(IoNames, TextEncoders) {
  const std::string q = "text_model.encoder.layers.0.self_attn.q_proj.weight";
  const SafetensorsFile clip =
      file({{q, {2, 2}}, {"text_model.embeddings.position_ids", {1}}, {"logit_scale", {}}},
           "text_encoders.clip_l.transformer.");
  EXPECT_EQ(NamedTensors(clip, clip_names()).names(), (std::vector<std::string>{q}));
  const std::string n = "encoder.final_layer_norm.weight";
  const SafetensorsFile t5 = file({{n, {2}},
                                   {"shared.weight", {3, 2}},
                                   {"encoder.embed_tokens.weight", {3, 2}},
                                   {"decoder.block.0.x", {1}},
                                   {"lm_head.weight", {1}}});
  const NamedTensors named(t5, t5_names());
  EXPECT_EQ(named.names(), (std::vector<std::string>{n, "shared.weight"}));
  EXPECT_EQ(named.read_f32("shared.weight"), values_of("shared.weight", {3, 2}));
  const SafetensorsFile tied = file({{n, {2}}, {"encoder.embed_tokens.weight", {3, 2}}});
  EXPECT_EQ(NamedTensors(tied, t5_names()).shape("shared.weight"), (Shape{3, 2}));
  EXPECT_EQ(to_foreign("shared.weight", {1, 1}, {1}, t5_names(), FileDType::f32)[0].name, "shared.weight");
}

TEST_F(IoNames, FusedAndSplitAtOnceIsAmbiguous) {
  const std::string b = "transformer_blocks.0.attn.";
  refused({{"double_blocks.0.img_attn.qkv.weight", {6, 2}},
           {b + "to_q.weight", {2, 2}},
           {b + "to_k.weight", {2, 2}},
           {b + "to_v.weight", {2, 2}}},
          flux1_names(), {"double_blocks.0.img_attn.qkv.weight", b, "both give"});
  refused({{"img_in.bias", {2}}, {"x_embedder.bias", {2}}}, flux1_names(),
          {"img_in.bias", "x_embedder.bias", "both give"});
}

TEST_F(IoNames, PartsMustFit) {
  const std::string b = "transformer_blocks.0.attn.";
  refused({{b + "to_q.weight", {2, 2}}, {b + "to_v.weight", {2, 2}}}, flux1_names(),
          {"double_blocks.0.img_attn.qkv.weight", "part"});
  refused({{b + "to_k.weight", {2, 2}}}, flux1_names(), {"part"});
  refused({{b + "to_q.weight", {4, 2}}, {b + "to_k.weight", {1, 2}}, {b + "to_v.weight", {1, 2}}},
          flux1_names(), {"to_k", "rows"});
  refused({{b + "to_q.weight", {2, 2}}, {b + "to_k.weight", {2, 3}}, {b + "to_v.weight", {2, 2}}},
          flux1_names(), {"to_k", "stacked"});
  refused({{"norm_out.linear.bias", {5}}}, flux1_names(), {"halves"});
  refused({{"norm_out.linear.bias", {}}}, flux1_names(), {"halves"});
}

TEST_F(IoNames, CheckListsEveryFault) {
  NamedShapes have{{"img_in.weight", {4, 8}}, {"img_in.bias", {5}}, {"time_in.in_layer.weihgt", {4, 5}}};
  const SafetensorsFile c = file(have);
  const NamedTensors named(c, flux1_names());
  expect_error(
      ErrorCode::format,
      {path_, "missing time_in.in_layer.weight", "nearest: time_in.in_layer.weihgt",
       "img_in.bias is [5], [4] is expected", "unexpected time_in.in_layer.weihgt"},
      [&] {
        named.check({{"img_in.weight", {4, 8}}, {"img_in.bias", {4}}, {"time_in.in_layer.weight", {4, 5}}});
      });
  NamedShapes wanted = have;
  for (int i = 0; i < 30; ++i) wanted.push_back({"gone." + std::to_string(i), {1}});
  expect_error(ErrorCode::format, {"gone.0", "gone.19", "and 10 more"}, [&] { named.check(wanted); });
  expect_error(ErrorCode::format, {path_, "none is missing"}, [&] { named.shape("none"); });
}

TEST_F(IoNames, CountsBlocks) {
  const SafetensorsFile c = file({{"double_blocks.0.x", {1}},
                                  {"double_blocks.1.x", {1}},
                                  {"double_blocks.1.y", {1}},
                                  {"double_blocksx.7.x", {1}}});
  EXPECT_EQ(NamedTensors(c, flux1_names()).count("double_blocks."), 2);
  EXPECT_EQ(NamedTensors(c, flux1_names()).count("single_blocks."), 0);
  const SafetensorsFile gap = file({{"double_blocks.0.x", {1}}, {"double_blocks.2.x", {1}}});
  expect_error(ErrorCode::format, {path_, "double_blocks.1 is missing"},
               [&] { NamedTensors(gap, flux1_names()).count("double_blocks."); });
}

TEST_F(IoNames, RefusesOtherEncodings) {
  for (const char* name : {"a.weight.absmax", "a.weight.quant_map", "a.weight.quant_state.bitsandbytes__nf4",
                           "a.qweight", "a.wscales", "a.qzeros", "a.weight._data"}) {
    refused({{name, {1}}}, flux1_names(), {name, "encoding", "BF16"}, ErrorCode::unsupported);
  }
}

TEST_F(IoNames, ValuesMustBeFinite) {
  const std::vector<float> v{1, NAN};
  write_safetensors(path_, {tensor_data("img_in.bias", {2}, v)});
  const SafetensorsFile c(path_);
  const NamedTensors named(c, flux1_names());
  expect_error(ErrorCode::format, {path_, "img_in.bias", "nan"}, [&] { named.read_f32("img_in.bias"); });
}

TEST_F(IoNames, RowsOfASplitMustAddUp) {
  const std::vector<float> v(8);
  expect_error(ErrorCode::invalid_argument, {"linear1", "[2, 2]"}, [&] {
    to_foreign("single_blocks.0.linear1.bias", {8}, v, flux1_names(), FileDType::f32, {2, 2});
  });
}

}  // namespace
}  // namespace vkflux::io
