// The files of decoder-only text encoders: names of every layout, GGUF, conversion, streaming, configs.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "model/convert.h"
#include "model/io/file.h"
#include "model/io/gguf.h"
#include "model/io/tensor_writer.h"
#include "model/text/decoder.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/decoders/";

/// A vector file's weights, bare: "layers.0.mlp.up_proj.weight".
std::map<std::string, io::TensorData> bare_weights(const std::string& name) {
  const auto file = io::open_tensors(kData + name + ".safetensors");
  std::map<std::string, io::TensorData> out;
  for (const auto& [key, info] : file->tensors()) {
    if (!key.starts_with("w.model.")) continue;
    const std::string bare = key.substr(8);
    out[bare] = io::tensor_data(bare, info.shape, file->read_f32(key), io::FileDType::f32);
  }
  return out;
}

io::TensorData named(io::TensorData data, const std::string& name) {
  data.name = name;
  return data;
}

/// State 2 of a file against the vectors'.
void expect_state(const std::string& path, const std::string& golden_name, const io::Json& json) {
  const GoldenCase golden(kData + golden_name + ".safetensors");
  const auto file = io::open_tensors(path);
  DecoderLm model(decoder_config(*file, json), 2);
  load(parameters(model), *open_named(path, io::decoder_names(*file, 2)), device());
  DecoderTokens tokens{golden.ids("in.left.input_ids"), {}, 0};
  for (const auto& row : golden.ids("in.left.mask")) tokens.mask.emplace_back(row.begin(), row.end());
  const Tensor got = model.forward(tokens, {2})[0];
  const std::vector<float> all = golden.values("out.left.hidden");
  const auto from = all.begin() + 2 * got.numel();
  test::expect_close(path, got.to_host(), {from, from + got.numel()}, test::kOutputTolerance);
}

io::Json config_of(const std::string& name) {
  return GoldenCase(kData + name + ".safetensors").config();
}

TEST(DecoderFiles, NamesOfEveryLayout) {
  const test::TempFolder folder;
  const std::vector<std::string> other{"lm_head.weight",
                                       "vision_tower.transformer.layers.0.attention.q_proj.weight",
                                       "multi_modal_projector.norm.weight", "tekken_model"};
  int n = 0;
  for (const char* prefix :
       {"model.", "", "language_model.model.", "model.language_model.",
        "text_encoders.qwen3_4b.transformer.model.", "text_encoders.mistral3_24b.transformer."}) {
    for (const char* model : {"qwen3_grouped", "mistral_grouped"}) {
      std::vector<io::TensorData> tensors;
      for (const auto& [name, data] : bare_weights(model)) tensors.push_back(named(data, prefix + name));
      for (const std::string& o : other) tensors.push_back(io::tensor_data(o, {2}, std::vector<float>{1, 2}));
      const std::string path = folder.file(std::to_string(n++) + ".safetensors");
      io::write_safetensors(path, tensors);
      expect_state(path, model, config_of(model));
      const auto file = io::open_tensors(path);
      const bool qwen = std::string(model) == "qwen3_grouped";
      const auto described =
          (qwen ? qwen3_component() : mistral_component()).describe(*file, config_of(model));
      ASSERT_TRUE(described) << prefix;
      EXPECT_EQ((*described)["hidden_size"], 12);
      EXPECT_FALSE((qwen ? mistral_component() : qwen3_component()).describe(*file, config_of(model)));
      (qwen ? qwen3_component() : mistral_component()).check(*file, config_of(model));
    }
  }
}

TEST(DecoderFiles, WhatIsMissingOrOddIsNamed) {
  const test::TempFolder folder;
  const std::string path = folder.file("x.safetensors");
  auto weights = bare_weights("qwen3_grouped");
  const auto check = [&](const std::string& word) {
    std::vector<io::TensorData> tensors;
    for (const auto& [name, data] : weights) tensors.push_back(named(data, "model." + name));
    io::write_safetensors(path, tensors);
    test::expect_error(ErrorCode::format, {word},
                       [&] { qwen3_component().check(*io::open_tensors(path), config_of("qwen3_grouped")); });
  };
  weights.erase("layers.1.mlp.up_proj.weight");
  check("layers.1.mlp.up_proj.weight");
  weights = bare_weights("qwen3_grouped");
  weights["layers.0.extra.weight"] = weights["norm.weight"];
  check("layers.0.extra.weight");
  weights = bare_weights("qwen3_grouped");
  weights["layers.2.self_attn.k_norm.weight"] = weights["norm.weight"];
  check("k_norm");
}

// Rows of q and k as converters for the llama architecture turn them.
io::TensorData turned(const io::TensorData& data, int64_t head) {
  io::TensorData out = data;
  const auto rows = static_cast<size_t>(data.shape[0]), bytes = data.bytes.size() / rows,
             d = static_cast<size_t>(head);
  for (size_t h = 0; h < rows / d; ++h) {
    for (size_t half = 0; half < 2; ++half) {
      for (size_t c = 0; c < d / 2; ++c)
        std::copy_n(data.bytes.begin() + static_cast<ptrdiff_t>((h * d + half * d / 2 + c) * bytes), bytes,
                    out.bytes.begin() + static_cast<ptrdiff_t>((h * d + 2 * c + half) * bytes));
    }
  }
  return out;
}

std::string gguf_name(const std::string& bare) {
  const std::vector<std::pair<std::string, std::string>> parts{
      {"self_attn.q_proj", "attn_q"},      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"}, {"self_attn.k_norm", "attn_k_norm"},
      {"input_layernorm", "attn_norm"},    {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  if (bare == "embed_tokens.weight") return "token_embd.weight";
  if (bare == "norm.weight") return "output_norm.weight";
  const size_t dot = bare.find('.', 7);
  for (const auto& [ours, theirs] : parts) {
    if (bare.substr(dot + 1) == ours + ".weight")
      return "blk." + bare.substr(7, dot - 7) + "." + theirs + ".weight";
  }
  return bare;
}

TEST(DecoderFiles, GgufOfEveryArchitecture) {
  const test::TempFolder folder;
  for (const std::string arch : {"llama", "mistral3", "qwen3"}) {
    const std::string model = arch == "qwen3" ? "qwen3_grouped" : "mistral_grouped";
    std::vector<io::OutTensor> tensors;
    for (const auto& [name, data] : bare_weights(model)) {
      const bool turns =
          arch != "qwen3" && (name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight"));
      const io::TensorData d = turns ? turned(data, 6) : data;
      tensors.push_back({gguf_name(name), d.dtype, d.shape, [d](const io::Sink& sink) { sink(d.bytes); }});
    }
    const std::vector<std::pair<std::string, io::GgufValue>> values{
        {"general.architecture", arch},
        {arch + ".attention.head_count", uint32_t{4}},
        {arch + ".attention.head_count_kv", arch == "qwen3" ? uint32_t{2} : uint32_t{1}},
        {arch + ".attention.key_length", uint32_t{6}},
        {arch + ".attention.layer_norm_rms_epsilon", arch == "qwen3" ? 1e-6f : 1e-5f},
        {arch + ".rope.freq_base", arch == "qwen3" ? 1e6f : 1e9f}};
    const std::string path = folder.file(arch + ".gguf");
    io::write_gguf(path, tensors, values);
    expect_state(path, model, {});
    // By the program's own hand there and back.
    const auto converted = [&](const std::string& from, const std::string& to,
                               const ConvertOptions& options) {
      const auto file = io::open_tensors(from);
      const ModelPartFile part = part_of_file(*file, "text_encoder");
      const io::NamedTensors named_tensors(*file, part.names);
      convert(part, *weights_of(named_tensors), to, options);
    };
    const std::string plain = folder.file(arch + "/model.safetensors"), again = folder.file(arch + "2.gguf");
    std::filesystem::create_directories(folder.file(arch));
    converted(path, plain, {DType::f32, "bfl"});
    for (const auto& [name, data] : bare_weights(model))
      EXPECT_EQ(io::open_tensors(plain)->read_bytes("model." + name), data.bytes) << name;
    io::atomic_write(folder.file(arch + "/config.json"), config_of(model).dump());
    converted(plain, again, {DType::f32, "bfl", true});
    const auto first = io::open_tensors(path), last = io::open_tensors(again);
    for (const auto& [name, info] : first->tensors())
      EXPECT_EQ(last->read_bytes(name), first->read_bytes(name)) << name;
    expect_state(again, model, {});
  }
}

TEST(DecoderFiles, MetadataThatIsNotComputedIsRefused) {
  const auto with = [](const std::string& key, const io::Json& value) {
    DecoderConfig c;
    c.qk_norm = false, c.heads = 4, c.kv_heads = 1, c.head_dim = 6, c.width = 12, c.mlp = 20;
    io::Json values{{"general.architecture", "llama"},
                    {"llama.attention.head_count", 4},
                    {"llama.attention.key_length", 6}};
    values[key] = value;
    apply_decoder_gguf(c, values);
    return c;
  };
  const auto refused = [&](const std::string& key, const io::Json& value, ErrorCode code) {
    test::expect_error(code, {"GGUF"}, [&] { with(key, value); });
  };
  refused("general.architecture", "gemma", ErrorCode::unsupported);
  refused("llama.rope.scaling.type", "yarn", ErrorCode::unsupported);
  refused("llama.attention.head_count", 3, ErrorCode::format);
  refused("llama.attention.head_count_kv", 2, ErrorCode::format);
  refused("llama.attention.key_length", 5, ErrorCode::format);
  refused("llama.embedding_length", 13, ErrorCode::format);
  refused("llama.rope.freq_base", -1, ErrorCode::format);
  EXPECT_EQ(with("llama.rope.freq_base", 5e5).theta, 5e5);
  EXPECT_EQ(with("llama.rope.scaling.type", "linear").rope_factor, 1);
}

// Blocks whose rows are turned, and their types by the rules.
TEST(DecoderFiles, PackedWeightsComeOutOfTurnedRows) {
  DecoderConfig c = mistral_small_config();
  c.vocab = 40, c.width = 64, c.layers = 2, c.heads = 4, c.kv_heads = 2, c.head_dim = 32, c.mlp = 96;
  DecoderLm whole(c);
  const auto params = parameters(whole);
  allocate(params, device());
  initialise(params, decoder_init(c), 5);
  const test::TempFolder folder;
  const std::string path = folder.file("model.safetensors"), packed = folder.file("q8.gguf"),
                    again = folder.file("q8b.gguf");
  save(params, path, {}, io::FileDType::f32);
  io::atomic_write(folder.file("config.json"), decoder_json(c).dump());
  for (const auto& [from, to, type] :
       {std::tuple{path, packed, WantedType(DType::q8_0)}, std::tuple{packed, again, WantedType()}}) {
    const auto file = io::open_tensors(from);
    const ModelPartFile part = part_of_file(*file, "");
    const io::NamedTensors source(*file, part.names);
    convert(part, *weights_of(source), to, {type, "bfl", true});
  }
  const auto file = io::open_tensors(packed), second = io::open_tensors(again);
  EXPECT_EQ(file->info("blk.0.attn_q.weight").dtype, io::FileDType::q8_0);
  EXPECT_EQ(file->info("token_embd.weight").dtype, io::FileDType::f16);
  for (const auto& [name, info] : file->tensors())
    EXPECT_EQ(second->read_bytes(name), file->read_bytes(name)) << name;
  const DecoderTokens tokens{{{3, 1, 4, 1, 5, 9, 2, 6}}, {}, 0};
  const std::vector<float> want = whole.forward(tokens, {2})[0].to_host();
  EXPECT_EQ(decoder_json(decoder_config(*file, {})), decoder_json(c));
  for (const WantedType type : {WantedType(), WantedType(DType::f32), WantedType(DType::q8_0)}) {
    for (const bool streams : {false, true}) {
      DecoderLm model(c);
      const auto named_file = open_named(packed, io::decoder_names(*file));
      model.stream_weights(load_streamed(parameters(model), model.layer_names(), {streams, streams},
                                         named_file, device(), type, decoder_storage()));
      test::expect_close("state", model.forward(tokens, {2})[0].to_host(), want, 3e-2);
    }
  }
}

// The first 30 layers of Mistral Small, as files for FLUX.2 have them, with or without the norm.
TEST(DecoderFiles, LayersCutForFlux2HaveNoFinalState) {
  const test::TempFolder folder;
  for (const int64_t layers : {30, 29}) {
    std::vector<io::TensorData> tensors{
        io::tensor_data("model.embed_tokens.weight", {1, 5120}, std::vector<float>(5120)),
        io::tensor_data("model.norm.weight", {5120}, std::vector<float>(5120))};
    for (int64_t i = 0; i < layers; ++i)
      tensors.push_back(io::tensor_data(fmt::format("model.layers.{}.self_attn.q_proj.weight", i), {1, 1},
                                        std::vector<float>(1)));
    const std::string path = folder.file("cut.safetensors");
    io::write_safetensors(path, tensors);
    const auto file = io::open_tensors(path);
    EXPECT_EQ(io::NamedTensors(*file, io::decoder_names(*file)).has("model.norm.weight"), layers == 29);
  }
}

TEST(DecoderFiles, TheEmbeddingMayStayInItsFile) {
  const std::string path = kData + "qwen3_grouped.safetensors";
  const auto file = io::open_tensors(path);
  const DecoderConfig config = decoder_config(*file, config_of("qwen3_grouped"));
  DecoderLm resident(config, 2), left(config, 2);
  load(parameters(resident), *open_named(path, io::decoder_names(*file, 2)), device());
  left.leave_embedding(open_named(path, io::decoder_names(*file)), device());
  load(parameters(left), *open_named(path, names_without_embedding(*file, 2)), device());
  EXPECT_EQ(parameters(left).size() + 1, parameters(resident).size());
  const DecoderTokens tokens{{{3, 1, 4, 1}, {5, 23, 0, 3}}, {}, 0};
  for (int64_t state : {0, 2})
    EXPECT_EQ(left.forward(tokens, {state})[0].to_host(), resident.forward(tokens, {state})[0].to_host());
  EXPECT_THROW(left.forward({{{24}}, {}, 0}, {0}), Error);
}

TEST(DecoderFiles, ConfigsAreHonouredOrRefused) {
  const auto applied = [](const std::string& name, const std::function<void(io::Json&)>& change) {
    const auto file = io::open_tensors(kData + name + ".safetensors");
    io::NameTable table = io::decoder_names(*file);
    io::Json json = config_of(name);
    change(json);
    return decoder_config(*file, json);
  };
  using J = io::Json;
  const auto refused = [&](const std::string& name, const std::string& word,
                           const std::function<void(J&)>& change, ErrorCode code = ErrorCode::format) {
    test::expect_error(code, {word}, [&] { applied(name, change); });
  };
  const ErrorCode no = ErrorCode::unsupported;
  for (const std::string name : {"qwen3_grouped", "mistral_grouped"}) {
    refused(name, "vocab_size", [](J& j) { j["vocab_size"] = 25; });
    refused(name, "hidden_size", [](J& j) { j["hidden_size"] = 16; });
    refused(name, "intermediate_size", [](J& j) { j["intermediate_size"] = 21; });
    refused(name, "num_hidden_layers", [](J& j) { j["num_hidden_layers"] = 4; });
    refused(name, "num_attention_heads", [](J& j) { j["num_attention_heads"] = 2; });
    refused(name, "num_attention_heads", [](J& j) { j["num_attention_heads"] = 0; });
    refused(name, "num_key_value_heads", [](J& j) { j["num_key_value_heads"] = nullptr; });
    refused(name, "heads", [](J& j) { j["head_dim"] = 5; });
    refused(name, "rms_norm_eps", [](J& j) { j["rms_norm_eps"] = "nan"; });
    refused(name, "rms_norm_eps", [](J& j) { j["rms_norm_eps"] = -1; });
    refused(
        name, "hidden_act", [](J& j) { j["hidden_act"] = "glu"; }, no);
    refused(
        name, "model_type", [](J& j) { j["model_type"] = "gemma"; }, no);
    refused(
        name, "yarn", [](J& j) { j["rope_parameters"]["rope_type"] = "yarn"; }, no);
    refused(
        name, "dynamic",
        [](J& j) {
          j["rope_scaling"] = {{"type", "dynamic"}, {"factor", 2.0}};
        },
        no);
    refused(name, "factor", [](J& j) { j["rope_parameters"]["rope_type"] = "linear"; });
    refused(
        name, "partial_rotary_factor", [](J& j) { j["rope_parameters"]["partial_rotary_factor"] = 0.5; }, no);
    refused(name, "rope_theta", [](J& j) { j["rope_parameters"]["rope_theta"] = 0; });
    refused(name, "rope_parameters", [](J& j) { j["rope_parameters"] = 3; });
    refused(name, "sliding_window", [](J& j) { j["sliding_window"] = 0; });
    refused(name, "object", [](J& j) { j["text_config"] = 3; });
    // As earlier versions write it.
    const DecoderConfig old = applied(name, [](J& j) {
      j.erase("rope_parameters");
      j["rope_theta"] = 700.0;
      j["rope_scaling"] = nullptr;
    });
    EXPECT_EQ(old.theta, 700);
    EXPECT_EQ(applied(name, [](J& j) { j.erase("rope_parameters"); }).theta, 10000);
    EXPECT_EQ(applied(name, [](J& j) { j["rope_parameters"] = nullptr; }).theta, 10000);
    const DecoderConfig inner = applied(name, [](J& j) {
      j = J{{"model_type", "mistral3"}, {"text_config", j}};
    });
    EXPECT_EQ(inner.head_dim, 6);
  }
  refused("qwen3_grouped", "q_norm", [](J& j) { j["model_type"] = "mistral"; });
  refused("mistral_grouped", "q_norm", [](J& j) { j["model_type"] = "qwen3"; });
  refused("qwen3_grouped", "attention_bias", [](J& j) { j["attention_bias"] = true; });
  refused("qwen3_grouped", "layer_types", [](J& j) { j["layer_types"] = {"full_attention"}; });
  refused("qwen3_grouped", "sliding_attention", [](J& j) { j["layer_types"][0] = "sliding_attention"; });
  refused(
      "qwen3_grouped", "linear_attention", [](J& j) { j["layer_types"][0] = "linear_attention"; }, no);
  const DecoderConfig windows = applied("qwen3_grouped", [](J& j) {
    j.erase("layer_types");
    j["use_sliding_window"] = true, j["sliding_window"] = 5, j["max_window_layers"] = 2;
  });
  EXPECT_EQ(windows.sliding, (std::vector<bool>{false, false, true}));
  EXPECT_TRUE(windows.slides(2));
  EXPECT_EQ(applied("qwen3_grouped", [](J& j) { j["sliding_window"] = 5; }).window, 0);  // not used
  EXPECT_EQ(applied("mistral_grouped", [](J& j) { j.erase("sliding_window"); }).window, 4096);
  EXPECT_EQ(applied("mistral_linear", [](J& j) { j["head_dim"] = nullptr; }).head_dim, 6);
  EXPECT_THROW(infer_decoder_config({}), Error);
}

}  // namespace
}  // namespace vkflux
