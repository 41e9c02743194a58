// What a decoder's sizes and numbers are, from tensors, transformers' configs and GGUF metadata.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/io/config_fields.h"
#include "model/io/gguf.h"
#include "model/load.h"
#include "model/text/decoder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const std::string kOrigin = "text_encoder/config.json";

const Shape& need(const std::map<std::string, Shape>& shapes, const std::string& name) {
  const auto it = shapes.find(name);
  if (it == shapes.end() || it->second.rank() != 2 || it->second.numel() == 0) {
    throw Error(ErrorCode::format,
                fmt::format("not a Qwen3 or Mistral text encoder: {} must be a matrix", name));
  }
  return it->second;
}

// With ErrorCode::format where the values came from a file.
void check_as(ErrorCode code, const DecoderConfig& c) {
  for (const int64_t v : {c.vocab, c.width, c.layers, c.heads, c.kv_heads, c.head_dim, c.mlp}) {
    if (v <= 0) throw Error(code, "text encoder config: sizes must be positive");
  }
  if (c.head_dim % 2)
    throw Error(code, fmt::format("text encoder config: head size {} must be even, its halves turn together",
                                  c.head_dim));
  if (c.heads % c.kv_heads)
    throw Error(code, fmt::format("text encoder config: {} query heads can't share {} key/value heads evenly",
                                  c.heads, c.kv_heads));
  if (!(c.eps > 0) || !std::isfinite(c.eps))
    throw Error(code, "text encoder config: rms_norm_eps must be positive and finite");
  if (!(c.theta > 0) || !std::isfinite(c.theta))
    throw Error(code, "text encoder config: rope_theta must be positive and finite");
  if (!(c.rope_factor > 0) || !std::isfinite(c.rope_factor))
    throw Error(code, "text encoder config: the rope's factor must be positive and finite");
  if (c.window < 0)
    throw Error(code, fmt::format("text encoder config: a sliding window of {} keys", c.window));
  if (!c.sliding.empty() && c.sliding.size() != static_cast<size_t>(c.layers))
    throw Error(code, fmt::format("text encoder config: layer types of {} layers, there are {}",
                                  c.sliding.size(), c.layers));
}

/// Query and key/value heads, of rows that are known and a head size.
void set_heads(DecoderConfig& c, int64_t q_rows, int64_t kv_rows, int64_t head_dim) {
  if (head_dim <= 0 || q_rows % head_dim || kv_rows % head_dim)
    throw Error(ErrorCode::format,
                fmt::format("text encoder: {} rows of q and {} of k don't split into heads of {}", q_rows,
                            kv_rows, head_dim));
  c.head_dim = head_dim, c.heads = q_rows / head_dim, c.kv_heads = kv_rows / head_dim;
}

bool there(const io::Json& json, const std::string& key) {
  return json.is_object() && json.contains(key) && !json[key].is_null();
}

/// transformers 5 writes rope_parameters, earlier ones rope_theta and rope_scaling.
void apply_rope(DecoderConfig& c, const io::Json& json, double default_theta) {
  c.theta = io::get_or<double>(json, "rope_theta", default_theta, kOrigin);
  c.rope_factor = 1;
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    if (!there(json, field)) continue;
    const io::Json& rope = json[field];
    const std::string where = fmt::format("{}: {}", kOrigin, field);
    if (!rope.is_object())
      throw Error(ErrorCode::format,
                  fmt::format("{} is {}, expected an object", where, io::shown(io::json_text(rope))));
    const auto type = io::get_or<std::string>(rope, "rope_type",
                                              io::get_or<std::string>(rope, "type", "default", where), where);
    if (type != "default" && type != "linear")
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: the rope_type \"{}\" isn't computed; known are default and linear", where,
                              io::shown(type)));
    c.theta = io::get_or<double>(rope, "rope_theta", c.theta, where);
    if (type == "linear") c.rope_factor = io::get<double>(rope, "factor", where);
    io::refuse_other(rope, "partial_rotary_factor", {1.0}, where);
    io::refuse_other(rope, "attention_factor", {1.0}, where);
  }
  io::refuse_other(json, "partial_rotary_factor", {1.0}, kOrigin);
}

/// Which layers have a window.
void apply_window(DecoderConfig& c, const io::Json& json, bool qwen) {
  const bool absent = !json.contains("sliding_window");
  c.window = io::get_or<int64_t>(json, "sliding_window", absent ? 4096 : 0, kOrigin);
  if (there(json, "sliding_window") && c.window < 1)
    throw Error(ErrorCode::format, fmt::format("{}: a sliding_window of {} keys", kOrigin, c.window));
  c.sliding.clear();
  if (!qwen) return;  // Mistral's every layer
  const bool used = io::get_or<bool>(json, "use_sliding_window", false, kOrigin);
  if (!used) c.window = 0;
  const auto first = io::get_or<int64_t>(json, "max_window_layers", 28, kOrigin);
  for (int64_t i = 0; i < c.layers; ++i) c.sliding.push_back(c.window > 0 && i >= first);
  if (!there(json, "layer_types")) return;
  const auto types = io::get<std::vector<std::string>>(json, "layer_types", kOrigin);
  if (types.size() != static_cast<size_t>(c.layers))
    throw Error(ErrorCode::format,
                fmt::format("{}: layer_types has {} entries for {} layers", kOrigin, types.size(), c.layers));
  for (size_t i = 0; i < types.size(); ++i) {
    const bool slides = types[i] == "sliding_attention";
    if (!slides && types[i] != "full_attention")
      throw Error(ErrorCode::unsupported,
                  fmt::format("{}: layer_types has \"{}\"; known are full_attention and "
                              "sliding_attention",
                              kOrigin, io::shown(types[i])));
    if (slides && c.window == 0)
      throw Error(
          ErrorCode::format,
          fmt::format("{}: layer {} has sliding_attention, but no sliding_window is used", kOrigin, i));
    c.sliding[i] = slides;
  }
}

}  // namespace

void DecoderConfig::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

DecoderConfig qwen3_4b_config() {
  return {};
}
DecoderConfig qwen3_8b_config() {
  DecoderConfig c;
  c.width = 4096, c.mlp = 12288, c.tied = false;
  return c;
}
DecoderConfig mistral_small_config() {
  DecoderConfig c;
  c.vocab = 131072, c.width = 5120, c.layers = 40, c.mlp = 32768;
  c.eps = 1e-5f, c.theta = 1e9, c.qk_norm = false, c.tied = false;
  return c;
}

DecoderConfig infer_decoder_config(const std::map<std::string, Shape>& shapes) {
  const auto layer = [](int64_t i, const char* part) { return fmt::format("model.layers.{}.{}", i, part); };
  const bool qk_norm = shapes.count(layer(0, "self_attn.q_norm.weight")) != 0;
  DecoderConfig c = qk_norm ? qwen3_4b_config() : mistral_small_config();
  const Shape& table = need(shapes, "model.embed_tokens.weight");
  c.vocab = table[0], c.width = table[1];
  c.mlp = need(shapes, layer(0, "mlp.gate_proj.weight"))[0];
  const int64_t q = need(shapes, layer(0, "self_attn.q_proj.weight"))[0],
                k = need(shapes, layer(0, "self_attn.k_proj.weight"))[0];
  int64_t head = c.head_dim;
  if (qk_norm) {
    const Shape& norm = shapes.at(layer(0, "self_attn.q_norm.weight"));
    if (norm.rank() != 1)
      throw Error(ErrorCode::format, "text encoder: self_attn.q_norm.weight must be a vector");
    head = norm[0];
  } else if (q % head || k % head) {
    head = k;  // until a config says it
    while (head % 2 == 0 && (q % head || head > 128)) head /= 2;
  }
  set_heads(c, q, k, head);
  c.attention_bias = shapes.count(layer(0, "self_attn.q_proj.bias")) != 0;
  c.final_norm = shapes.count("model.norm.weight") != 0;
  for (c.layers = 0; shapes.count(layer(c.layers, "self_attn.q_proj.weight"));) ++c.layers;
  return c;
}

void apply_decoder_json(DecoderConfig& c, const io::Json& whole) {
  const ErrorContext context(kOrigin);
  const bool nested = there(whole, "text_config");
  const io::Json& json = nested ? whole["text_config"] : whole;
  if (!json.is_object())
    throw Error(ErrorCode::format, nested ? "text_config must be an object" : "expected an object");
  // A Mistral 3 whose text half says nothing of its kind is Mistral's.
  const auto kind = io::get_or<std::string>(json, "model_type", c.qk_norm ? "qwen3" : "mistral", kOrigin);
  if (kind != "qwen3" && kind != "mistral")
    throw Error(ErrorCode::unsupported,
                fmt::format("the text encoder is of model_type \"{}\"; known are qwen3 and mistral",
                            io::shown(kind)));
  const bool qwen = kind == "qwen3";
  if (qwen != c.qk_norm)
    throw Error(ErrorCode::format, fmt::format("model_type is \"{}\", but the tensors {} q_norm and k_norm",
                                               kind, c.qk_norm ? "have" : "lack"));
  const int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  const auto heads = io::get_or<int64_t>(json, "num_attention_heads", 32, kOrigin);
  if (heads < 1) throw Error(ErrorCode::format, fmt::format("num_attention_heads is {}", heads));
  // What an absent or null field means differs by model.
  int64_t head_dim = qwen ? 128 : c.width / heads;
  head_dim = io::get_or<int64_t>(json, "head_dim", head_dim, kOrigin);
  set_heads(c, q_rows, kv_rows, head_dim);
  const int64_t all = json.contains("num_key_value_heads") ? heads : qwen ? 32 : 8;
  const auto kv_heads = io::get_or<int64_t>(json, "num_key_value_heads", all, kOrigin);
  if (heads != c.heads || kv_heads != c.kv_heads)
    throw Error(
        ErrorCode::format,
        fmt::format(
            "{} query and {} key/value heads of {} (num_attention_heads, num_key_value_heads, head_dim) "
            "don't give the {} and {} rows that q_proj and k_proj have",
            heads, kv_heads, head_dim, q_rows, kv_rows));
  for (const auto& [key, actual] : {std::pair<const char*, io::Json>{"vocab_size", c.vocab},
                                    {"hidden_size", c.width},
                                    {"intermediate_size", c.mlp}})
    io::refuse_contradiction(json, key, actual, kOrigin);
  // A file may hold the first layers alone.
  const auto layers = io::get_or<int64_t>(json, "num_hidden_layers", c.layers, kOrigin);
  if (layers < c.layers || (layers > c.layers && c.final_norm))
    throw Error(ErrorCode::format,
                fmt::format("num_hidden_layers is {}, the tensors are of {} layers", layers, c.layers));
  if (qwen) io::refuse_contradiction(json, "attention_bias", c.attention_bias, kOrigin);
  if (!qwen && c.attention_bias)
    throw Error(ErrorCode::unsupported, "the attention's biases aren't part of a Mistral");
  c.eps = io::get_or<float>(json, "rms_norm_eps", 1e-6f, kOrigin);
  c.tied = io::get_or<bool>(json, "tie_word_embeddings", false, kOrigin);
  c.activation = Activation::of_config(io::get_or<std::string>(json, "hidden_act", "silu", kOrigin),
                                       kOrigin + ": hidden_act");
  apply_rope(c, json, 10000);
  apply_window(c, json, qwen);
  check_as(ErrorCode::format, c);
}

void apply_decoder_gguf(DecoderConfig& c, const io::Json& values) {
  const std::string origin = "GGUF metadata";
  const ErrorContext context(origin);
  const auto arch = io::get_or<std::string>(values, "general.architecture", "", origin);
  if (arch != "llama" && arch != "mistral3" && arch != "mistral" && arch != "qwen3")
    throw Error(ErrorCode::unsupported,
                fmt::format("architecture \"{}\": known are llama, mistral3 and qwen3", io::shown(arch)));
  const auto key = [&](const char* name) { return arch + name; };
  const int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  const auto heads = io::get_or<int64_t>(values, key(".attention.head_count"), 0, origin);
  int64_t head_dim = heads > 0 && c.width % heads == 0 ? c.width / heads : c.head_dim;
  for (const char* name : {".rope.dimension_count", ".attention.key_length"})
    head_dim = io::get_or<int64_t>(values, key(name), head_dim, origin);
  set_heads(c, q_rows, kv_rows, head_dim);
  if (heads > 0) io::refuse_contradiction(values, key(".attention.head_count"), c.heads, origin);
  for (const auto& [name, actual] : {std::pair<const char*, io::Json>{".attention.head_count_kv", c.kv_heads},
                                     {".attention.key_length", c.head_dim},
                                     {".attention.value_length", c.head_dim},
                                     {".rope.dimension_count", c.head_dim},
                                     {".embedding_length", c.width},
                                     {".feed_forward_length", c.mlp}})
    io::refuse_contradiction(values, key(name), actual, origin);
  c.eps = io::get_or<float>(values, key(".attention.layer_norm_rms_epsilon"), c.eps, origin);
  c.theta = io::get_or<double>(values, key(".rope.freq_base"), c.theta, origin);
  const auto scaling = io::get_or<std::string>(values, key(".rope.scaling.type"), "none", origin);
  if (scaling == "linear") {
    c.rope_factor = io::get_or<double>(values, key(".rope.scaling.factor"), 1, origin);
  } else if (scaling != "none") {
    throw Error(ErrorCode::unsupported, fmt::format("{} is \"{}\": known are none and linear",
                                                    key(".rope.scaling.type"), io::shown(scaling)));
  }
  c.window = io::get_or<int64_t>(values, key(".attention.sliding_window"), 0, origin);
  c.sliding.clear();
  check_as(ErrorCode::format, c);
}

io::Json decoder_json(const DecoderConfig& c) {
  io::Json json{{"architectures", {c.qk_norm ? "Qwen3ForCausalLM" : "MistralForCausalLM"}},
                {"model_type", c.qk_norm ? "qwen3" : "mistral"},
                // Without it the type of the first stored tensor would be everybody's, in f16 files.
                {"dtype", "float32"},
                {"torch_dtype", "float32"},
                {"vocab_size", c.vocab},
                {"hidden_size", c.width},
                {"intermediate_size", c.mlp},
                {"num_hidden_layers", c.layers},
                {"num_attention_heads", c.heads},
                {"num_key_value_heads", c.kv_heads},
                {"head_dim", c.head_dim},
                {"hidden_act", c.activation.name()},
                {"rms_norm_eps", c.eps},
                {"tie_word_embeddings", c.tied},
                {"attention_bias", c.attention_bias},
                {"attention_dropout", 0.0},
                {"max_position_embeddings", 32768},
                {"rope_theta", c.theta},  // of transformers before 5
                {"rope_parameters", {{"rope_theta", c.theta}, {"rope_type", "default"}}},
                {"sliding_window", nullptr}};
  if (c.rope_factor != 1) {
    json["rope_parameters"] = {{"rope_theta", c.theta}, {"rope_type", "linear"}, {"factor", c.rope_factor}};
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", c.rope_factor}};
  }
  if (c.window > 0) json["sliding_window"] = c.window;
  if (!c.qk_norm) return json;
  json["use_sliding_window"] = c.window > 0;
  json["max_window_layers"] = c.layers;
  for (int64_t i = 0; i < c.layers; ++i)
    json["layer_types"].push_back(c.slides(i) ? "sliding_attention" : "full_attention");
  return json;
}

DecoderConfig decoder_config(const io::TensorSource& file, const io::Json& json) {
  const ErrorContext context(file.path());
  DecoderConfig c = infer_decoder_config(shapes_of(io::NamedTensors(file, io::decoder_names(file))));
  const auto* gguf = dynamic_cast<const io::GgufFile*>(&file);
  if (gguf && there(gguf->values(), "general.architecture")) apply_decoder_gguf(c, gguf->values());
  if (json.is_object() && !json.empty()) apply_decoder_json(c, json);
  return c;
}

io::NameTable names_without_embedding(const io::TensorSource& file, int64_t layers) {
  io::NameTable t = io::decoder_names(file, layers);
  t.ignore.insert(t.ignore.end(), {"model.embed_tokens.weight", "embed_tokens.weight", "token_embd.weight"});
  return t;
}

namespace {

bool is_decoder(const io::NamedTensors& named, bool qk_norm) {
  return named.has("model.embed_tokens.weight") && named.has("model.layers.0.self_attn.q_proj.weight") &&
         named.has("model.layers.0.self_attn.q_norm.weight") == qk_norm;
}

template <bool kQkNorm>
std::optional<io::Json> describe(const io::TensorSource& file, const io::Json& json) {
  if (!is_decoder(io::NamedTensors(file, io::decoder_names(file)), kQkNorm)) return {};
  const bool ours =
      json.is_object() && (json.contains("num_attention_heads") || json.contains("text_config"));
  return decoder_json(decoder_config(file, ours ? json : io::Json::object()));
}

void check_tensors(const io::TensorSource& file, const io::Json& json) {
  DecoderLm model(decoder_config(file, json));
  check(parameters(model), io::NamedTensors(file, io::decoder_names(file)));
}

}  // namespace

ComponentKind qwen3_component() {
  return {"qwen3 text encoder", describe<true>, check_tensors};
}
ComponentKind mistral_component() {
  return {"mistral text encoder", describe<false>, check_tensors};
}

}  // namespace vkflux
