#include "model/text/decoder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "model/load.h"
#include "vk/error.h"

namespace vkflux {
namespace {

// What causality and padding leave, in one layer and in those whose window is narrower.
struct Masks {
  op::AttentionOptions full, sliding;
};

Tensor window_bias(Device& device, int64_t heads, int64_t length, int64_t window) {
  std::vector<float> bias(static_cast<size_t>(length * length));
  for (int64_t q = 0; q < length; ++q) {
    for (int64_t k = 0; k + window <= q; ++k) bias[static_cast<size_t>(q * length + k)] = -INFINITY;
  }
  const Tensor one = Tensor::from(device, std::span<const float>(bias), Shape{1, length, length});
  return op::expand(one, {heads, length, length});
}

Masks masks_of(Device& device, const DecoderConfig& c, const DecoderTokens& tokens) {
  const auto batch = static_cast<int64_t>(tokens.ids.size()),
             length = static_cast<int64_t>(tokens.ids[0].size());
  Masks m;
  m.full.causal = true;
  std::vector<uint8_t> keep;
  for (size_t b = 0; b < tokens.mask.size(); ++b) {
    if (tokens.mask.size() != tokens.ids.size() || tokens.mask[b].size() != tokens.ids[b].size())
      throw Error(ErrorCode::invalid_argument, "the mask of a text has another shape than its ids");
    for (const uint8_t v : tokens.mask[b]) keep.push_back(v ? 1 : 0);
  }
  if (std::find(keep.begin(), keep.end(), 0) != keep.end())
    m.full.key_mask = Tensor::from(device, std::span<const uint8_t>(keep), Shape{batch, length});
  m.sliding = m.full;
  if (c.window > 0 && c.window < length) m.sliding.bias = window_bias(device, c.heads, length, c.window);
  return m;
}

// Cosine and sine, [1, T, D/2, 2]; angles in single precision, as the reference computes them.
Tensor rotations(Device& device, const DecoderConfig& c, int64_t first, int64_t length) {
  const int64_t half = c.head_dim / 2;
  std::vector<float> frequency, table;
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(c.head_dim);
    frequency.push_back(static_cast<float>(std::pow(c.theta, -exponent) / c.rope_factor));
  }
  for (int64_t t = 0; t < length; ++t) {
    for (const float f : frequency) {
      const float angle = static_cast<float>(first + t) * f;
      table.push_back(static_cast<float>(std::cos(static_cast<double>(angle))));
      table.push_back(static_cast<float>(std::sin(static_cast<double>(angle))));
    }
  }
  return Tensor::from(device, std::span<const float>(table), Shape{1, length, half, 2});
}

// [B, T, H D] -> [B, H, T, D] with channels c and c + D/2 of each head side by side. Scores don't depend on
// an order that q and k share.
Tensor heads_of(const Tensor& x, int64_t heads, const Tensor& norm, float eps) {
  const int64_t batch = x.dim(0), length = x.dim(1), d = x.dim(2) / heads;
  Tensor h = op::reshape(x, {batch, length, heads, d});
  if (norm.defined()) h = op::rms_norm(h, norm, eps);
  const Tensor pairs = op::permute(op::reshape(h, {batch, length, heads, 2, d / 2}), {0, 2, 1, 4, 3});
  return op::reshape(pairs, {batch, heads, length, d});
}

// Every key/value head for each of the query heads that share it.
Tensor shared(const Tensor& x, int64_t heads) {
  const int64_t batch = x.dim(0), own = x.dim(1), length = x.dim(2), d = x.dim(3);
  if (own == heads) return x;
  const Tensor one = op::reshape(x, {batch, own, 1, length, d});
  return op::reshape(op::expand(one, {batch, own, heads / own, length, d}), {batch, heads, length, d});
}

}  // namespace

DecoderLayer::DecoderLayer(const DecoderConfig& c)
    : config(c),
      q{c.width, c.heads * c.head_dim, c.attention_bias},
      k{c.width, c.kv_heads * c.head_dim, c.attention_bias},
      v{c.width, c.kv_heads * c.head_dim, c.attention_bias},
      o{c.heads * c.head_dim, c.width, c.attention_bias},
      gate{c.width, c.mlp, false},
      up{c.width, c.mlp, false},
      down{c.mlp, c.width, false} {}

Tensor DecoderLayer::operator()(const Tensor& x, const Tensor& rope,
                                const op::AttentionOptions& options) const {
  const DecoderConfig& c = config;
  const Tensor a = op::rms_norm(x, norm1, c.eps);
  const Tensor queries = op::rope(heads_of(q(a), c.heads, q_norm, c.eps), rope);
  const Tensor keys = op::rope(heads_of(k(a), c.kv_heads, k_norm, c.eps), rope);
  const Tensor attended = op::attention(queries, shared(keys, c.heads),
                                        shared(op::split_heads(v(a), c.kv_heads), c.heads), options);
  const Tensor y = op::add(x, o(op::merge_heads(attended)));
  const Tensor f = op::rms_norm(y, norm2, c.eps);
  const bool fused = c.activation.fused() != op::Activation::none;
  const Tensor gated = fused ? gate(f, c.activation.fused()) : c.activation(gate(f));
  return op::add(y, down(op::mul(gated, up(f))));
}

DecoderLm::DecoderLm(const DecoderConfig& config, int64_t layers) : config_((config.check(), config)) {
  if (layers < 0) layers = config.layers;
  if (layers > config.layers)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} layers of a text encoder that has {}", layers, config.layers));
  layers_.assign(static_cast<size_t>(layers), DecoderLayer(config));
  normed_ = config.final_norm && layers == config.layers;
}

std::vector<std::string> DecoderLm::layer_names() const {
  std::vector<std::string> out;
  for (size_t i = 0; i < layers_.size(); ++i) out.push_back("model.layers." + std::to_string(i));
  return out;
}

Tensor DecoderLm::embedded(const TokenIds& ids) const {
  if (!device_) return op::embedding(table_, upload_ids(table_.device(), ids, config_.vocab));
  upload_ids(*device_, ids, config_.vocab);  // checks them
  std::map<int32_t, int32_t> places;
  TokenIds local = ids;
  for (auto& row : local) {
    for (int32_t& id : row) id = places.try_emplace(id, static_cast<int32_t>(places.size())).first->second;
  }
  std::vector<float> rows(places.size() * static_cast<size_t>(config_.width));
  for (const auto& [id, place] : places) {
    if (device_->rehearsing()) break;
    const auto width = static_cast<size_t>(config_.width);
    rows_->read("model.embed_tokens.weight", DType::f32, static_cast<uint64_t>(id) * width,
                std::as_writable_bytes(std::span(rows).subspan(static_cast<size_t>(place) * width, width)));
  }
  const auto n = static_cast<int64_t>(places.size());
  const Tensor table = Tensor::from(*device_, std::span<const float>(rows), Shape{n, config_.width});
  return op::embedding(table, upload_ids(*device_, local, n));
}

std::vector<Tensor> DecoderLm::forward(const DecoderTokens& tokens, const std::vector<int64_t>& states,
                                       Trace* trace) const {
  const auto here = static_cast<int64_t>(layers_.size());
  for (const int64_t s : states) {
    if (s < 0 || s > here)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("hidden state {} of a text encoder of which {} layers are loaded", s, here));
  }
  Tensor x = embedded(tokens.ids);
  Device& device = x.device();
  const Masks masks = masks_of(device, config_, tokens);
  const Tensor rope = rotations(device, config_, tokens.first_position, x.dim(1));
  const int64_t last = states.empty() ? 0 : *std::max_element(states.begin(), states.end());
  std::vector<Tensor> out(states.size());
  const auto take = [&](int64_t number, const Tensor& state) {
    observe(trace, "hidden." + std::to_string(number), state);
    for (size_t i = 0; i < states.size(); ++i) {
      if (states[i] == number) out[i] = state;
    }
  };
  take(0, x);
  for (int64_t i = 0; i < last; ++i) {
    if (weights_) weights_->acquire(static_cast<size_t>(i));
    x = layers_[static_cast<size_t>(i)](x, rope, config_.slides(i) ? masks.sliding : masks.full);
    take(i + 1, i + 1 == config_.layers && normed_ ? op::rms_norm(x, final_norm_, config_.eps) : x);
  }
  return out;
}

int64_t layers_for_states(std::vector<int64_t>& states, const DecoderConfig& config) {
  if (states.empty())
    throw Error(ErrorCode::invalid_argument, "no hidden states of the text encoder are asked for");
  for (int64_t& s : states) {
    const int64_t asked = s;
    if (s < 0) s += config.layers + 1;
    if (s < 0 || s > config.layers)
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("hidden state {} of the text encoder: its {} layers give 0 to {}", asked,
                              config.layers, config.layers));
  }
  return *std::max_element(states.begin(), states.end());
}

const StorageRules& decoder_storage() {
  static const StorageRules rules{{"embed_tokens."}, {}, {"embed_tokens."}};
  return rules;
}

InitRule decoder_init(const DecoderConfig& config) {
  return [c = config](const Param& p) -> Init {
    if (p.shape.rank() < 2) return {Init::Kind::constant, p.name.ends_with("weight") ? 1.0f : 0.0f};
    double variance = 1 / static_cast<double>(p.shape[1]);
    if (p.name.find("o_proj") != std::string::npos || p.name.find("down_proj") != std::string::npos)
      variance /= 2.0 * static_cast<double>(c.layers);
    return {Init::Kind::normal, static_cast<float>(std::sqrt(variance))};
  };
}

}  // namespace vkflux
