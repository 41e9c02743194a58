// LoRA files of every dialect against what diffusers, peft and the dialects' formulas make of them
// (tests/data/lora/make_lora_vectors.py), beside weights and merged into them.
#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "model/describe_lora.h"
#include "model/flux/lora.h"
#include "model/flux/rope.h"
#include "model/lora/lora.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "tests/model/golden_case.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

constexpr double kTolerance = 1e-4;

const std::string kFolder = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/lora/";

Flux1Config flux_config() {
  static const Flux1Config config = [] {
    const GoldenCase golden = GoldenCase::data("flux_diffusers_names.safetensors");
    Flux1Config c = infer_flux1_config(shapes_of(golden.weights(io::flux1_names())));
    c.axes_dim = {4, 6, 6};
    return c;
  }();
  return config;
}

ClipTextConfig clip_config() {
  ClipTextConfig c;
  c.vocab = 60;
  c.positions = 12;
  c.width = 32;
  c.layers = 2;
  c.heads = 4;
  c.mlp = 64;
  c.eos = 59;
  return c;
}

T5Config t5_config() {
  T5Config c;
  c.vocab = 60;
  c.width = 32;
  c.layers = 2;
  c.heads = 4;
  c.head_dim = 8;
  c.mlp = 64;
  return c;
}

std::vector<lora::Component> components() {
  return flux1_lora_components(flux_config(), clip_config(), t5_config());
}

/// The three base models with their weights, and what they make of the golden files' inputs.
struct Transformer {
  GoldenCase golden = GoldenCase::data("flux_diffusers_names.safetensors");
  Flux1 model{flux_config()};

  explicit Transformer(DType weights = DType::f32) {
    load(parameters(model), golden.weights(io::flux1_names()), device(), weights);
  }
  Tensor out() {
    PassInputs in;
    in.x = golden.tensor("in.img");
    in.condition = {{"txt", golden.tensor("in.txt")}, {"y", golden.tensor("in.y")}};
    in.t = golden.tensor("in.timesteps");
    in.guidance = golden.tensor("in.guidance");
    // Those of the first picture, for both.
    std::vector<float> ids = golden.values("in.txt_ids"), image = golden.values("in.img_ids");
    ids.resize(ids.size() / 2);
    ids.insert(ids.end(), image.begin(), image.begin() + static_cast<ptrdiff_t>(image.size() / 2));
    in.positions = rope_table(device(), ids, 1, flux_config().axes_dim, flux_config().theta);
    return model.forward(in);
  }
};

struct Clip {
  GoldenCase golden = GoldenCase::data("clip_text.safetensors");
  ClipText model{clip_config()};

  Clip() { load(parameters(model), golden.weights(io::clip_names()), device()); }
  Tensor out() { return model.forward(golden.ids("in.input_ids")).last_hidden_state; }
};

struct T5 {
  GoldenCase golden = GoldenCase::data("t5_encoder.safetensors");
  T5Encoder model{t5_config()};

  T5() { load(parameters(model), golden.weights(io::t5_names()), device()); }
  Tensor out() { return model.forward(golden.ids("in.input_ids")); }
};

template <class Base>
void merge(const LoraSet& loras, const std::string& part, Base& base) {
  for (const Param& p : parameters(base.model)) {
    std::vector<float> values = p.tensor->to_host();
    if (loras.merge(part, p.name, values))
      *p.tensor = Tensor::from(device(), std::span<const float>(values), p.shape);
  }
}

template <class Base>
void check(const LoraSet& loras, const std::string& part, const GoldenCase& cases, const std::string& name) {
  static Base beside;  // attach() takes the changes of the case before away, but for norms
  std::optional<Base> own;
  if (name == "control" || name == "full") own.emplace();
  Base& model = own ? *own : beside;
  loras.attach(part, model.model);
  cases.check("out." + name, model.out(), kTolerance);
  const std::set<std::string> both{"control", "full", "loha", "lokr", "dora_weighted", "dora_lycoris"};
  if (!both.count(name)) return;
  Base merged;
  merge(loras, part, merged);
  cases.check("out." + name, merged.out(), kTolerance);
}

TEST(Lora, DrawsWhatTheReferencesDraw) {
  const GoldenCase cases(kFolder + "cases.safetensors");
  const io::SafetensorsFile file(kFolder + "cases.safetensors");
  const io::Json list = io::parse_json(file.metadata().at("cases"), "cases");
  EXPECT_GE(list.size(), 20u);
  for (const auto& [name, c] : list.items()) {
    SCOPED_TRACE(name);
    std::vector<LoraUse> uses;
    for (const io::Json& f : c.at("files"))
      uses.push_back({kFolder + f[0].get<std::string>(), f[1].get<float>()});
    std::vector<std::string> reports;
    const LoraSet loras(uses, components(), [&](const std::string& text) { reports.push_back(text); });
    ASSERT_EQ(reports.size(), uses.size());
    for (const std::string& r : reports) EXPECT_EQ(r.find("not used"), r.npos) << r;
    const auto part = c.at("part").get<std::string>();
    if (part == "transformer") check<Transformer>(loras, part, cases, name);
    if (part == "text_encoder") check<Clip>(loras, part, cases, name);
    if (part == "text_encoder_2") check<T5>(loras, part, cases, name);
  }
}

TEST(Lora, LeavesPackedWeightsAsTheyAre) {
  for (const DType weights : {DType::f16, DType::q8_0}) {
    Transformer packed(weights), merged(weights);
    const LoraSet loras({{kFolder + "dora.safetensors", 0.7f}, {kFolder + "lokr.safetensors", 0.5f}},
                        components());
    const std::vector<uint8_t> before = parameters(packed.model)[20].tensor->to_host_bytes();
    EXPECT_GT(loras.attach("transformer", packed.model), 0u);
    EXPECT_EQ(parameters(packed.model)[20].tensor->to_host_bytes(), before);
    // Its values in f32 with the change in them.
    for (const Param& p : parameters(merged.model)) {
      std::vector<float> values = p.tensor->to_host();
      loras.merge("transformer", p.name, values);
      *p.tensor = Tensor::from(device(), std::span<const float>(values), p.shape);
    }
    test::expect_close(std::string(name(weights)), packed.out().to_host(), merged.out().to_host(), 4e-3);
  }
}

TEST(Lora, StreamedWeightsAreReadFromTheirFile) {
  Transformer held, streamed;
  const LoraSet loras({{kFolder + "dora.safetensors", 0.7f},
                       {kFolder + "dora_lycoris.safetensors", 0.5f},
                       {kFolder + "full.safetensors", 1}},
                      components());
  std::map<std::string, std::vector<float>> file;
  for (const Param& p : parameters(streamed.model)) file[p.name] = p.tensor->to_host();
  loras.attach("transformer", held.model);
  const std::vector<float> want = held.out().to_host();
  // What the slots hold meanwhile isn't looked at.
  std::map<std::string, Tensor> weights;
  for (const Param& p : parameters(streamed.model)) {
    weights[p.name] = *p.tensor;
    *p.tensor = Tensor::zeros(device(), p.shape);
  }
  const std::vector<Param> params = parameters(streamed.model);
  std::vector<Tensor> zeros = tensors(params);
  loras.attach("transformer", streamed.model, [&](const std::string& name) { return file.at(name); });
  for (size_t i = 0; i < params.size(); ++i)
    if (params[i].tensor->id() == zeros[i].id()) *params[i].tensor = weights[params[i].name];
  EXPECT_EQ(streamed.out().to_host(), want);
  EXPECT_EQ(loras.fingerprint("text_encoder"), "");
  EXPECT_NE(loras.fingerprint("transformer"), "");
}

TEST(Lora, WeightsAddUpAndCanBeTakenBack) {
  Transformer base;
  const std::vector<float> plain = base.out().to_host();
  const std::string file = kFolder + "kohya.safetensors";
  LoraSet({{file, 1}, {file, -1}}, components()).attach("transformer", base.model);
  test::expect_close("one against the other", base.out().to_host(), plain, 1e-5);
  LoraSet({{file, 0}}, components()).attach("transformer", base.model);
  EXPECT_EQ(base.out().to_host(), plain);  // the side paths are gone: the same bits
}

/// A LoRA file of these tensors.
class LoraFiles : public testing::Test {
 protected:
  static io::TensorData tensor(const std::string& name, const std::vector<int64_t>& shape,
                               float value = 0.1f) {
    int64_t n = 1;
    for (const int64_t d : shape) n *= d;
    return io::tensor_data(name, shape, std::vector<float>(static_cast<size_t>(n), value));
  }
  std::string write(const std::vector<io::TensorData>& tensors,
                    const std::map<std::string, std::string>& metadata = {}) {
    const std::string path = folder_.file("x.safetensors");
    io::write_safetensors(path, tensors, metadata);
    return path;
  }
  /// What opening it says.
  std::string report(const std::vector<io::TensorData>& tensors,
                     const std::map<std::string, std::string>& metadata = {}) {
    std::string out;
    const LoraSet loras({{write(tensors, metadata), 1}}, components(),
                        [&](const std::string& text) { out = text; });
    Transformer base;
    loras.attach("transformer", base.model);
    return out;
  }
  void expect_refused(const std::vector<io::TensorData>& tensors, const std::vector<std::string>& words,
                      const std::map<std::string, std::string>& metadata = {}) {
    test::expect_error(ErrorCode::format, words, [&] { report(tensors, metadata); });
  }
  test::TempFolder folder_;
  const std::string proj = "lora_unet_double_blocks_0_img_attn_proj";
};

TEST_F(LoraFiles, SayWhatMatched) {
  const std::string r = report(
      {tensor(proj + ".lora_down.weight", {2, 32}), tensor(proj + ".lora_up.weight", {32, 2}),
       tensor("lora_unet_double_blocks_7_img_attn_proj.lora_down.weight", {2, 32}),
       tensor("lora_unet_single_blocks_0_linear2.lora_down.weight", {2, 99}),
       tensor("lora_unet_single_blocks_0_linear2.lora_up.weight", {32, 2}), tensor("bundle_emb.x", {4})});
  EXPECT_NE(r.find("2 of 6 tensors match, 1 modules"), r.npos) << r;
  EXPECT_NE(r.find("lora_unet_double_blocks_7_img_attn_proj.lora_down.weight (no module"), r.npos) << r;
  EXPECT_NE(r.find("[32, 2] times lora_unet_single_blocks_0_linear2.lora_down.weight [2, 99] make [32, 99], "
                   "single_blocks.0.linear2 has [32, 160]"),
            r.npos)
      << r;
}

TEST_F(LoraFiles, OfAnotherModelAreRefused) {
  expect_refused({tensor("lora_unet_double_block_0_img_attn_proj.lora_down.weight", {2, 32}),
                  tensor("lora_unet_double_block_0_img_attn_proj.lora_up.weight", {32, 2})},
                 {"none of its tensors", "nearest: lora_unet_double_blocks_0_img_attn_proj"});
  // A text encoder that happens to fit isn't enough.
  const std::string te = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj";
  expect_refused({tensor(te + ".lora_down.weight", {2, 32}), tensor(te + ".lora_up.weight", {32, 2}),
                  tensor("lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight", {2, 32})},
                 {"another model"});
  expect_refused({tensor("img_in.weight", {32, 16})}, {"none of its tensors"});
  expect_refused({}, {"none of its tensors"});
}

TEST_F(LoraFiles, ControlNeedsItsTransformer) {
  test::expect_error(ErrorCode::unsupported, {"control LoRA", "[32, 32]"}, [&] {
    report({tensor("img_in.lora_A.weight", {2, 32}), tensor("img_in.lora_B.weight", {32, 2})});
  });
}

TEST_F(LoraFiles, DamageIsNamed) {
  const io::TensorData down = tensor(proj + ".lora_down.weight", {2, 32}),
                       up = tensor(proj + ".lora_up.weight", {32, 2});
  expect_refused({down}, {proj + ".lora_down.weight", "half of a pair"});
  expect_refused({tensor(proj + ".lora_up.bias", {32})}, {"half of a pair"});
  expect_refused({down, tensor(proj + ".lora_up.weight", {32, 3})}, {"[32, 3]", "[2, 32]", "ranks differ"});
  expect_refused({tensor(proj + ".lora_down.weight", {0, 32}), tensor(proj + ".lora_up.weight", {32, 0})},
                 {"[0, 32]", "at least one"});
  expect_refused({down, tensor(proj + ".lora_up.weight", {32, 2}, NAN)}, {proj + ".lora_up.weight", "nan"});
  expect_refused({tensor(proj + ".lora_down.weight", {2, 32}, INFINITY), up},
                 {proj + ".lora_down.weight", "inf"});
  expect_refused({down, up, tensor(proj + ".alpha", {}, NAN)}, {proj + ".alpha", "nan"});
  expect_refused({down, up, tensor(proj + ".alpha", {2})}, {proj + ".alpha [2]", "one number"});
  expect_refused({down, up, tensor("transformer.transformer_blocks.0.attn.to_out.0.lora_A.weight", {2, 32}),
                  tensor("transformer.transformer_blocks.0.attn.to_out.0.lora_B.weight", {32, 2})},
                 {"double_blocks.0.img_attn.proj", "two dialects"});
  expect_refused({down, up, tensor(proj + ".lora_A.weight", {2, 32})}, {"the same thing"});
  expect_refused({down, up, tensor(proj + ".diff", {32, 32})}, {"one method"});
  expect_refused({tensor(proj + ".hada_w1_a", {32, 2}), tensor(proj + ".hada_w1_b", {2, 32})},
                 {"half of a pair"});
  expect_refused({tensor(proj + ".lokr_w1", {4, 4})}, {"one factor"});
  expect_refused({tensor(proj + ".lokr_w1", {4, 4}), tensor(proj + ".lokr_w1_a", {4, 2}),
                  tensor(proj + ".lokr_w1_b", {2, 4}), tensor(proj + ".lokr_w2", {8, 8})},
                 {"the same factor"});
  expect_refused({down, up}, {"lora_adapter_metadata"}, {{"lora_adapter_metadata", "{"}});
  expect_refused({down, up}, {"lora_alpha", "finite"},
                 {{"lora_adapter_metadata", R"({"transformer.lora_alpha": "nan"})"}});
}

TEST_F(LoraFiles, AnyMixtureOfTensorsIsReadOrRefused) {
  using Row = std::pair<std::string, std::vector<int64_t>>;
  const std::vector<std::vector<Row>> methods{
      {{".lora_down.weight", {2, 32}}, {".lora_up.weight", {32, 2}}, {".alpha", {}}, {".dora_scale", {32}}},
      {{".lora_A.weight", {2, 32}},
       {".lora_B.weight", {32, 2}},
       {".lora_B.bias", {32}},
       {".dora_scale", {1, 32}}},
      {{".hada_w1_a", {32, 2}}, {".hada_w1_b", {2, 32}}, {".hada_w2_a", {32, 2}}, {".hada_w2_b", {2, 32}}},
      {{".lokr_w1", {4, 4}}, {".lokr_w2_a", {8, 2}}, {".lokr_w2_b", {2, 8}}, {".alpha", {1}}},
      {{".diff", {32, 32}}, {".diff_b", {32}}},
      {{".hada_t1", {2, 2, 1, 1}}, {".hada_t2", {2, 2}}, {".lokr_t2", {2, 2}}, {".weight", {16}}}};
  const std::vector<std::vector<int64_t>> shapes{{},      {1},     {32},     {2, 32}, {32, 2}, {64, 2},
                                                 {0, 32}, {1, 32}, {32, 32}, {4, 4},  {2, 2},  {3, 2, 1}};
  const std::vector<std::string> modules{"double_blocks.0.img_attn.proj", "transformer_blocks.0.attn.to_q",
                                         "double_blocks.0.img_attn.norm.query_norm"};
  Flux1 model(flux_config());
  int read = 0;
  for (uint32_t seed = 0; seed < 80; ++seed) {
    uint32_t state = seed * 2654435761u + 1;
    const auto below = [&](size_t n) {
      state = state * 1664525u + 1013904223u;
      return static_cast<size_t>(state >> 8) % n;
    };
    std::map<std::string, io::TensorData> tensors;
    const std::string& module = modules[below(modules.size())];
    std::vector<Row> rows = methods[below(methods.size())];
    if (below(3) == 0) {
      const std::vector<Row>& more = methods[below(methods.size())];
      rows.push_back(more[below(more.size())]);
    }
    for (const auto& [ending, shape] : rows) {
      if (below(8) == 0) continue;
      tensors.insert_or_assign(ending,
                               tensor(module + ending, below(8) ? shape : shapes[below(shapes.size())]));
    }
    std::vector<io::TensorData> list;
    for (const auto& [name, t] : tensors) list.push_back(t);
    try {
      const LoraSet loras({{write(list), 1}}, components());
      for (const Param& p : parameters(model)) {
        std::vector<float> values(static_cast<size_t>(p.shape.numel()), 1.0f);
        loras.merge("transformer", p.name, values);
      }
      ++read;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::format) << e.what();
    }
  }
  EXPECT_GT(read, 10);
}

TEST_F(LoraFiles, AreDescribed) {
  const auto describe = [&](const std::string& name) {
    return lora::describe_lora(*lora::open_lora(kFolder + name + ".safetensors")).value();
  };
  io::Json j = describe("kohya");
  EXPECT_EQ(j["dialect"], io::Json({"kohya"}));
  EXPECT_EQ(j["method"], "LoRA");
  EXPECT_EQ(j["ranks"], io::Json({3}));
  EXPECT_EQ(j["for"], "FLUX.1");
  EXPECT_EQ(j["unmatched"], 0);
  EXPECT_EQ(describe("control")["dialect"], io::Json({"BFL control"}));
  EXPECT_EQ(describe("dora")["method"], "LoRA (DoRA)");
  EXPECT_EQ(describe("loha")["method"], "LoHa");
  EXPECT_EQ(describe("lokr")["method"], "LoKr");
  EXPECT_EQ(describe("xlabs")["dialect"], io::Json({"XLabs"}));
  j = describe("kohya_text");
  EXPECT_EQ(j["targets"]["text_encoder_2"], 4);
  const GoldenCase base = GoldenCase::data("flux_diffusers_names.safetensors");
  EXPECT_FALSE(lora::describe_lora(
      *io::open_tensors(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux_diffusers_names.safetensors")));
}

}  // namespace
}  // namespace vkflux
