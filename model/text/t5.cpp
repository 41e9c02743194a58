#include "model/text/t5.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/io/config_fields.h"
#include "model/load.h"
#include "vk/error.h"

namespace vkflux {
namespace {

const Shape& need(const std::map<std::string, Shape>& shapes, const std::string& name) {
  const auto it = shapes.find(name);
  if (it == shapes.end() || it->second.rank() != 2 || it->second.numel() == 0) {
    throw Error(ErrorCode::format, fmt::format("not a T5 encoder: {} must be a matrix", name));
  }
  return it->second;
}

Linear bare(int64_t in, int64_t out) {
  return Linear{in, out, false};
}

// With ErrorCode::format where the values came from a file.
void check_as(ErrorCode code, const T5Config& c) {
  for (const int64_t v : {c.vocab, c.width, c.layers, c.heads, c.head_dim, c.mlp}) {
    if (v <= 0) throw Error(code, "T5 config: sizes must be positive");
  }
  if (c.head_dim % 4) {
    throw Error(code, fmt::format("T5 config: head size {} must be a multiple of 4", c.head_dim));
  }
  if (c.buckets < 4 || c.buckets % 4 || c.max_distance <= c.buckets / 4) {
    throw Error(code, fmt::format("T5 config: {} buckets for a distance of {}", c.buckets, c.max_distance));
  }
  if (!(c.eps > 0) || !std::isfinite(c.eps))
    throw Error(code, "T5 config: layer_norm_epsilon must be positive and finite");
}

}  // namespace

void T5Config::check() const {
  check_as(ErrorCode::invalid_argument, *this);
}

T5Config infer_t5_config(const std::map<std::string, Shape>& shapes) {
  const auto block = [](int64_t i, const char* part) {
    return fmt::format("encoder.block.{}.layer.{}.weight", i, part);
  };
  T5Config c;
  const Shape& shared = need(shapes, "shared.weight");
  c.vocab = shared[0];
  c.width = shared[1];
  const Shape& bias = need(shapes, block(0, "0.SelfAttention.relative_attention_bias"));
  c.buckets = bias[0];
  c.heads = bias[1];
  const int64_t inner = need(shapes, block(0, "0.SelfAttention.q"))[0];
  if (inner % c.heads) {
    throw Error(ErrorCode::format, fmt::format("T5: {} rows of q don't split into {} heads", inner, c.heads));
  }
  c.head_dim = inner / c.heads;
  c.gated = shapes.count(block(0, "1.DenseReluDense.wi")) == 0;
  if (!c.gated) c.activation = *Activation::named("relu");  // the first T5's
  c.mlp = need(shapes, block(0, c.gated ? "1.DenseReluDense.wi_0" : "1.DenseReluDense.wi"))[0];
  for (c.layers = 0; shapes.count(block(c.layers, "0.SelfAttention.q"));) ++c.layers;
  return c;
}

namespace {

/// "relu", "gated-gelu": the activation, and whether another product gates it. Configs may also carry the two
/// halves as fields, which win where they differ.
void apply_feed_forward(T5Config& c, const io::Json& json, const std::string& origin) {
  const auto whole = io::get_or<std::string>(
      json, "feed_forward_proj", c.gated ? "gated-gelu" : std::string(c.activation.name()), origin);
  constexpr std::string_view kGated = "gated-";
  bool gated = whole.starts_with(kGated);
  std::string act = gated ? whole.substr(kGated.size()) : whole;
  if (whole == "gated-gelu") act = "gelu_new";
  act = io::get_or<std::string>(json, "dense_act_fn", act, origin);
  gated = io::get_or<bool>(json, "is_gated_act", gated, origin);
  if (gated != c.gated)
    throw Error(ErrorCode::format,
                fmt::format("{}: feed_forward_proj \"{}\" is {}gated, but the weights are {}gated", origin,
                            io::shown(whole), gated ? "" : "not ", c.gated ? "" : "not "));
  c.activation = Activation::of_config(act, origin + ": feed_forward_proj or dense_act_fn");
}

std::string feed_forward(const T5Config& c) {
  if (!c.gated) return std::string(c.activation.name());
  const std::string act(c.activation.name() == "gelu_new" ? "gelu" : c.activation.name());
  return "gated-" + act;
}

}  // namespace

void apply_t5_json(T5Config& c, const io::Json& json) {
  const std::string origin = "text_encoder_2/config.json";
  apply_feed_forward(c, json, origin);
  io::refuse_other(json, "is_decoder", {false}, origin);
  for (const auto& [key, actual] : {std::pair<const char*, io::Json>{"vocab_size", c.vocab},
                                    {"d_model", c.width},
                                    {"d_kv", c.head_dim},
                                    {"num_heads", c.heads},
                                    {"d_ff", c.mlp},
                                    {"num_layers", c.layers},
                                    {"relative_attention_num_buckets", c.buckets}})
    io::refuse_contradiction(json, key, actual, origin);
  c.max_distance = io::get_or<int64_t>(json, "relative_attention_max_distance", c.max_distance, origin);
  c.eps = io::get_or<float>(json, "layer_norm_epsilon", c.eps, origin);
  const ErrorContext context(origin);
  check_as(ErrorCode::format, c);
}

io::Json t5_json(const T5Config& c) {
  return {{"architectures", {"T5EncoderModel"}},
          {"model_type", "t5"},
          // Without it the type of the first stored tensor would be everybody's, in f16 files.
          {"dtype", "float32"},
          {"torch_dtype", "float32"},
          {"vocab_size", c.vocab},
          {"d_model", c.width},
          {"d_kv", c.head_dim},
          {"num_heads", c.heads},
          {"d_ff", c.mlp},
          {"num_layers", c.layers},
          {"feed_forward_proj", feed_forward(c)},
          {"dense_act_fn", c.activation.name()},
          {"is_gated_act", c.gated},
          {"is_encoder_decoder", false},
          {"relative_attention_num_buckets", c.buckets},
          {"relative_attention_max_distance", c.max_distance},
          {"layer_norm_epsilon", c.eps}};
}

int32_t t5_bucket(int64_t relative, int64_t buckets, int64_t max_distance) {
  const int64_t half = buckets / 2, exact = half / 2, n = relative < 0 ? -relative : relative;
  int64_t b = n;
  if (n >= exact) {
    // In single precision, as the reference computes it: the floor depends on it at the borders.
    const float ratio =
        std::log(static_cast<float>(n) / static_cast<float>(exact)) /
        static_cast<float>(std::log(static_cast<double>(max_distance) / static_cast<double>(exact)));
    b = std::min(half - 1, exact + static_cast<int64_t>(ratio * static_cast<float>(half - exact)));
  }
  return static_cast<int32_t>((relative > 0 ? half : 0) + b);
}

T5Block::T5Block(const T5Config& c, bool first)
    : heads(c.heads),
      eps(c.eps),
      width(c.width),
      gated(c.gated),
      activation(c.activation),
      q(bare(c.width, c.heads * c.head_dim)),
      k(bare(c.width, c.heads * c.head_dim)),
      v(bare(c.width, c.heads * c.head_dim)),
      o(bare(c.heads * c.head_dim, c.width)),
      wi_0(bare(c.width, c.mlp)),
      wi_1(bare(c.width, c.mlp)),
      wo(bare(c.mlp, c.width)),
      relative_shape(first ? Shape{c.buckets, c.heads} : Shape()) {}

Tensor T5Block::operator()(const Tensor& x, const Tensor& bias) const {
  op::AttentionOptions options;
  options.scale = 1;
  options.bias = bias;
  const Tensor a = op::rms_norm(x, norm1, eps);
  const Tensor attended = op::attention(op::split_heads(q(a), heads), op::split_heads(k(a), heads),
                                        op::split_heads(v(a), heads), options);
  const Tensor y = op::add(x, o(op::merge_heads(attended)));
  const Tensor f = op::rms_norm(y, norm2, eps);
  if (!gated) return op::add(y, wo(activation(wi_0(f))));
  const bool geglu = activation.fused() == op::Activation::gelu_tanh;
  return op::add(y, wo(geglu ? op::geglu(wi_0(f), wi_1(f)) : op::mul(activation(wi_0(f)), wi_1(f))));
}

T5Encoder::T5Encoder(const T5Config& config) : config_((config.check(), config)) {
  for (int64_t i = 0; i < config.layers; ++i) blocks_.emplace_back(config, i == 0);
}

std::vector<std::string> T5Encoder::layer_names() const {
  std::vector<std::string> out;
  for (size_t i = 0; i < blocks_.size(); ++i) out.push_back("encoder.block." + std::to_string(i));
  return out;
}

Tensor T5Encoder::position_bias(int64_t length) const {
  std::vector<int32_t> buckets;
  for (int64_t query = 0; query < length; ++query) {
    for (int64_t key = 0; key < length; ++key) {
      buckets.push_back(t5_bucket(key - query, config_.buckets, config_.max_distance));
    }
  }
  const Tensor ids = Tensor::from(shared_.device(), std::span<const int32_t>(buckets), Shape{length, length});
  return op::permute(op::embedding(blocks_.front().relative_bias, ids), {2, 0, 1});
}

Tensor T5Encoder::forward(const TokenIds& ids, Trace* trace) const {
  const Tensor tokens = upload_ids(shared_.device(), ids, config_.vocab);
  if (weights_) weights_->acquire(0);
  const Tensor bias = position_bias(tokens.dim(1));
  observe(trace, "position_bias", bias);
  Tensor x = op::embedding(shared_, tokens);  // [B, T, C]
  observe(trace, "hidden.0", x);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (weights_ && i > 0) weights_->acquire(i);
    x = blocks_[i](x, bias);
    observe(trace, "hidden." + std::to_string(i + 1), x);
  }
  return op::rms_norm(x, final_norm_, config_.eps);
}

const StorageRules& t5_storage() {
  static const StorageRules rules{
      {"shared.", "relative_attention_bias"}, {}, {"shared.", "relative_attention_bias"}};
  return rules;
}

InitRule t5_init(const T5Config& config) {
  return [c = config](const Param& p) -> Init {
    const auto normal = [](int64_t inverse_variance) {
      return Init{Init::Kind::normal,
                  static_cast<float>(1 / std::sqrt(static_cast<double>(inverse_variance)))};
    };
    const auto has = [&](std::string_view part) { return p.name.find(part) != std::string::npos; };
    if (has("layer_norm")) return {Init::Kind::constant, 1};
    if (p.name == "shared.weight") return {Init::Kind::normal, 1};
    if (has("relative_attention_bias")) return normal(c.width);
    if (has("SelfAttention.q.")) return normal(c.width * c.head_dim);
    return normal(p.shape[1]);
  };
}

ComponentKind t5_component() {
  return {"t5 encoder",
          [](const io::TensorSource& file, const io::Json& json) -> std::optional<io::Json> {
            const io::NamedTensors named(file, io::t5_names());
            if (!named.has("shared.weight") || named.count("encoder.block.") == 0) return {};
            T5Config config = infer_t5_config(shapes_of(named));
            if (json.is_object() && json.contains("d_kv")) apply_t5_json(config, json);
            return t5_json(config);
          },
          [](const io::TensorSource& file, const io::Json& json) {
            const io::NamedTensors named(file, io::t5_names());
            T5Config config = infer_t5_config(shapes_of(named));
            apply_t5_json(config, json);
            T5Encoder model(config);
            check(parameters(model), named);
          }};
}

}  // namespace vkflux
