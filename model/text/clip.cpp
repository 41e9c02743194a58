#include "model/text/clip.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/io/config_fields.h"
#include "model/load.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const Shape& need(const std::map<std::string, Shape>& shapes, const std::string& name) {
  const auto it = shapes.find(name);
  if (it == shapes.end() || it->second.rank() != 2 || it->second.numel() == 0) {
    throw Error(ErrorCode::format, fmt::format("not a CLIP text model: {} must be a matrix", name));
  }
  return it->second;
}

Tensor norm(const Tensor& x, const NormAffine& n, float eps) {
  return op::layer_norm(x, n.weight, n.bias, eps);
}

// With ErrorCode::format where the values came from a file.
void check_as(ErrorCode code, const ClipTextConfig& c) {
  for (const int64_t v : {c.vocab, c.positions, c.width, c.heads, c.mlp}) {
    if (v <= 0) throw Error(code, "CLIP config: sizes must be positive");
  }
  if (c.width % c.heads || c.width / c.heads % 4) {
    throw Error(code, fmt::format("CLIP config: width {} doesn't split into {} heads of a multiple of 4",
                                  c.width, c.heads));
  }
  if (!(c.eps > 0) || !std::isfinite(c.eps))
    throw Error(code, "CLIP config: layer_norm_eps must be positive and finite");
  if (c.positions < 2) throw Error(code, "CLIP config: two positions are needed, for start and end");
  if (c.eos < 0 || c.eos >= c.vocab) {
    throw Error(code, fmt::format("CLIP config: end token {} of {}", c.eos, c.vocab));
  }
}

}  // namespace

Tensor upload_ids(Device& device, const TokenIds& ids, int64_t vocab) {
  if (ids.empty() || ids[0].empty()) throw Error(ErrorCode::invalid_argument, "no token ids were given");
  std::vector<int32_t> flat;
  for (const auto& row : ids) {
    if (row.size() != ids[0].size()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("token rows of {} and {} ids in one batch", ids[0].size(), row.size()));
    }
    for (const int32_t id : row) {
      if (id < 0 || id >= vocab) {
        throw Error(
            ErrorCode::invalid_argument,
            fmt::format("token id {} is outside the text encoder's vocabulary of {}: do tokenizer and "
                        "encoder belong together?",
                        id, vocab));
      }
    }
    flat.insert(flat.end(), row.begin(), row.end());
  }
  return Tensor::from(device, std::span<const int32_t>(flat),
                      Shape{static_cast<int64_t>(ids.size()), static_cast<int64_t>(ids[0].size())});
}

void ClipTextConfig::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

ClipTextConfig infer_clip_config(const std::map<std::string, Shape>& shapes) {
  ClipTextConfig c;
  const Shape& tokens = need(shapes, "text_model.embeddings.token_embedding.weight");
  c.vocab = tokens[0];
  c.width = tokens[1];
  c.positions = need(shapes, "text_model.embeddings.position_embedding.weight")[0];
  const auto layer = [](int64_t i) { return fmt::format("text_model.encoder.layers.{}.mlp.fc1.weight", i); };
  c.mlp = need(shapes, layer(0))[0];
  for (c.layers = 0; shapes.count(layer(c.layers));) ++c.layers;
  c.heads = std::max<int64_t>(1, c.width / 64);
  c.eos = static_cast<int32_t>(c.vocab - 1);
  return c;
}

void apply_clip_json(ClipTextConfig& c, const io::Json& whole) {
  const std::string origin = "text_encoder/config.json";
  // The config of CLIP with its picture half has the text half's inside.
  const bool nested = whole.is_object() && whole.contains("text_config") && whole["text_config"].is_object();
  const io::Json& json = nested ? whole["text_config"] : whole;
  c.heads = io::get_or<int64_t>(json, "num_attention_heads", c.heads, origin);
  c.eps = io::get_or<float>(json, "layer_norm_eps", c.eps, origin);
  const auto eos = io::get_or<int32_t>(json, "eos_token_id", c.eos, origin);
  c.eos = eos == 2 ? static_cast<int32_t>(c.vocab - 1) : eos;
  const auto act = io::get_or<std::string>(json, "hidden_act", "quick_gelu", origin);
  c.activation = Activation::of_config(act, origin + ": hidden_act");
  for (const auto& [key, actual] : {std::pair<const char*, io::Json>{"vocab_size", c.vocab},
                                    {"hidden_size", c.width},
                                    {"intermediate_size", c.mlp},
                                    {"num_hidden_layers", c.layers},
                                    {"max_position_embeddings", c.positions}})
    io::refuse_contradiction(json, key, actual, origin);
  const ErrorContext context(origin);
  check_as(ErrorCode::format, c);
}

io::Json clip_json(const ClipTextConfig& c) {
  return {{"architectures", {"CLIPTextModel"}},
          {"model_type", "clip_text_model"},
          // Without it the type of the first stored tensor would be everybody's, in f16 files.
          {"dtype", "float32"},
          {"torch_dtype", "float32"},
          {"vocab_size", c.vocab},
          {"hidden_size", c.width},
          {"intermediate_size", c.mlp},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"max_position_embeddings", c.positions},
          {"hidden_act", c.activation.name()},
          {"layer_norm_eps", c.eps},
          {"eos_token_id", c.eos},
          {"projection_dim", c.width}};
}

ClipLayer::ClipLayer(const ClipTextConfig& c)
    : heads(c.heads),
      activation(c.activation),
      eps(c.eps),
      norm1{c.width},
      norm2{c.width},
      q{c.width, c.width},
      k{c.width, c.width},
      v{c.width, c.width},
      out{c.width, c.width},
      fc1{c.width, c.mlp},
      fc2{c.mlp, c.width} {}

Tensor ClipLayer::operator()(const Tensor& x) const {
  op::AttentionOptions causal;
  causal.causal = true;
  const Tensor a = norm(x, norm1, eps);
  const Tensor o = op::attention(op::split_heads(q(a), heads), op::split_heads(k(a), heads),
                                 op::split_heads(v(a), heads), causal);
  const Tensor y = op::add(x, out(op::merge_heads(o)));
  const Tensor a2 = norm(y, norm2, eps);
  const bool fused = activation.fused() != op::Activation::none;
  return op::add(y, fc2(fused ? fc1(a2, activation.fused()) : activation(fc1(a2))));
}

ClipText::ClipText(const ClipTextConfig& config)
    : config_((config.check(), config)),
      layers_(static_cast<size_t>(config.layers), ClipLayer(config)),
      final_norm_{config.width} {}

ClipText::Output ClipText::forward(const TokenIds& ids, Trace* trace) const {
  Device& device = tokens_.device();
  const Tensor tokens = upload_ids(device, ids, config_.vocab);  // [B, T]
  const int64_t batch = tokens.dim(0), length = tokens.dim(1);
  if (length > config_.positions) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} tokens for a CLIP model of {} positions", length, config_.positions));
  }
  std::vector<int32_t> ends, places(static_cast<size_t>(length));
  for (size_t b = 0; b < ids.size(); ++b) {
    const auto end = std::find(ids[b].begin(), ids[b].end(), config_.eos);
    if (end == ids[b].end()) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("token row {} has no end token {}", b, config_.eos));
    }
    ends.push_back(static_cast<int32_t>(static_cast<int64_t>(b) * length + (end - ids[b].begin())));
  }
  std::iota(places.begin(), places.end(), 0);
  const Tensor where = Tensor::from(device, std::span<const int32_t>(places), Shape{length});
  Tensor x = op::add(op::embedding(tokens_, tokens), op::embedding(positions_, where));  // [B, T, C]
  observe(trace, "hidden.0", x);
  for (size_t i = 0; i < layers_.size(); ++i) {
    x = layers_[i](x);
    observe(trace, "hidden." + std::to_string(i + 1), x);
  }
  x = norm(x, final_norm_, config_.eps);
  const Tensor rows = Tensor::from(device, std::span<const int32_t>(ends), Shape{batch});
  return {x, op::gather_rows(op::reshape(x, {batch * length, config_.width}), rows)};
}

const StorageRules& clip_storage() {
  static const StorageRules rules{{"text_model."}, {}, {"embeddings."}};
  return rules;
}

InitRule clip_init() {
  return [](const Param& p) -> Init {
    const auto has = [&](std::string_view part) { return p.name.find(part) != std::string::npos; };
    if (has("norm")) return {Init::Kind::constant, p.name.ends_with("weight") ? 1.0f : 0.0f};
    if (has("token_embedding")) return {Init::Kind::normal, 0.1f};
    if (has("position_embedding")) return {Init::Kind::normal, 0.02f};
    return p.shape.rank() < 2 ? Init{} : xavier_uniform(p.shape);
  };
}

ComponentKind clip_component() {
  return {"clip text encoder",
          [](const io::TensorSource& file, const io::Json& json) -> std::optional<io::Json> {
            const io::NamedTensors named(file, io::clip_names());
            if (!named.has("text_model.embeddings.token_embedding.weight")) return {};
            ClipTextConfig config = infer_clip_config(shapes_of(named));
            if (json.is_object() && json.contains("num_attention_heads")) apply_clip_json(config, json);
            return clip_json(config);
          },
          [](const io::TensorSource& file, const io::Json& json) {
            const io::NamedTensors named(file, io::clip_names());
            ClipTextConfig config = infer_clip_config(shapes_of(named));
            apply_clip_json(config, json);
            ClipText model(config);
            check(parameters(model), named);
          }};
}

}  // namespace vkflux
