// Shapes, starting values and costs of HKR layers.
#include <fmt/format.h>

#include <cmath>
#include <map>

#include "model/attention/hkr/hkr.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxWidth = 1 << 16;

bool contains(const std::string& name, const char* part) {
  return name.find(part) != std::string::npos;
}

struct Shapes {
  std::map<std::string, Shape> by_name;

  bool has(const std::string& name) const { return by_name.count(name) != 0; }
  const Shape& matrix(const std::string& name) const {
    const auto it = by_name.find(name);
    if (it == by_name.end())
      throw Error(ErrorCode::format,
                  fmt::format("an HKR layer needs the tensor '{}', which is missing", name));
    if (it->second.rank() != 2)
      throw Error(ErrorCode::format, fmt::format("{} is {}, a matrix was expected", name, it->second.str()));
    return it->second;
  }
};

int64_t bytes_of_weights(const HkrConfig& c) {
  const int64_t d = c.head_dim, w = c.width(), f = c.feature_dim;
  const int64_t phi = w * (d + 1) + (c.layers - 2) * w * (w + 1) + f * (w + 1);
  return 4 * (2 * phi + 1 + 128 * 65 + 4 * 129);
}

}  // namespace

void HkrConfig::check() const {
  const auto refuse = [](const char* field, int64_t value, const char* what) {
    throw Error(ErrorCode::invalid_argument, fmt::format("HKR {} is {}, it must be {}", field, value, what));
  };
  if (head_dim < 4 || head_dim % 4 != 0 || head_dim > kMaxWidth)
    refuse("head_dim", head_dim, "a multiple of 4 from 4 to 65536");
  if (feature_dim < 32 || feature_dim % 32 != 0 || feature_dim > kMaxWidth)
    refuse("feature_dim", feature_dim, "a multiple of 32 from 32 to 65536");
  if (hidden != 0 && (hidden < 32 || hidden % 32 != 0 || hidden > 2 * kMaxWidth))
    refuse("hidden", hidden, "0 (max(head_dim, 2 feature_dim)) or a multiple of 32 from 32 to 131072");
  if (layers != 2 && layers != 3) refuse("layers", layers, "2 or 3");
}

double alpha_logit(double alpha_init) {
  if (!(alpha_init > 0)) return -5;
  if (alpha_init >= 1) return 5;
  return std::log(alpha_init / (1 - alpha_init));
}

InitRule hkr_init(const HkrConfig& config, double alpha_init) {
  config.check();
  return [config, alpha = static_cast<float>(alpha_logit(alpha_init))](const Param& p) -> Init {
    const auto uniform = [](int64_t fan_in) {
      return Init{Init::Kind::uniform, static_cast<float>(1 / std::sqrt(static_cast<double>(fan_in)))};
    };
    if (contains(p.name, "conditioner.mlp.2.")) return {};
    if (contains(p.name, "conditioner.mlp.0.")) return uniform(64);
    if (contains(p.name, "phi_net_")) {
      const bool first = contains(p.name, ".0.weight") || contains(p.name, ".0.bias");
      return uniform(first ? config.head_dim : config.width());
    }
    if (p.name.size() >= 5 && p.name.compare(p.name.size() - 5, 5, "alpha") == 0)
      return {Init::Kind::constant, alpha};
    throw Error(ErrorCode::internal, p.name + " is no parameter of an HKR layer");
  };
}

HkrConfig infer_hkr_config(const std::vector<std::pair<std::string, Shape>>& shapes) {
  const Shapes s{{shapes.begin(), shapes.end()}};
  HkrConfig c;
  const std::string net = "kernel.phi_net_q.";
  const Shape& first = s.matrix(net + "0.weight");
  c.layers = s.has(net + "4.weight") ? 3 : 2;
  c.head_dim = first[1];
  c.hidden = first[0];
  c.feature_dim = s.matrix(fmt::format("{}{}.weight", net, 2 * (c.layers - 1)))[0];
  if (c.hidden == std::max(c.head_dim, 2 * c.feature_dim)) c.hidden = 0;
  try {
    c.check();
  } catch (const Error& e) {
    throw Error(ErrorCode::format, e.what());
  }
  HkrLayer layer(c);
  const auto expected = parameters(layer);
  for (const Param& p : expected) {
    const auto it = s.by_name.find(p.name);
    if (it == s.by_name.end())
      throw Error(ErrorCode::format,
                  fmt::format("an HKR layer needs the tensor '{}', which is missing", p.name));
    if (!(it->second == p.shape))
      throw Error(ErrorCode::format, fmt::format("{} is {}, {} was expected from the other tensors", p.name,
                                                 it->second.str(), p.shape.str()));
  }
  if (s.by_name.size() != expected.size()) {
    for (const auto& [name, shape] : s.by_name) {
      const bool known =
          std::any_of(expected.begin(), expected.end(), [&n = name](const Param& p) { return p.name == n; });
      if (!known) throw Error(ErrorCode::format, fmt::format("an HKR layer has no tensor '{}'", name));
    }
  }
  return c;
}

Cost hkr_cost(const HkrConfig& config, const HkrOptions& options, const AttentionShape& shape) {
  const auto number = [](int64_t x) { return static_cast<double>(x); };
  const double d = number(config.head_dim), w = number(config.width()), f = number(config.feature_dim);
  const double phi = d * w + number(config.layers - 2) * w * w + w * f;
  const int64_t n = shape.text + shape.image;
  const double m = number(landmark_count(n, shape.text, options.landmarks));
  const double heads = number(shape.batch * shape.heads), rows = heads * number(n);
  const double per_row = 2 * phi + 2 * f * d + 2 * f + 2 * m * d;
  Cost cost{};
  cost.flops = 2 * rows * per_row;
  cost.bytes =
      4 * (4 * rows * d + 2 * heads * f * (d + 1) + 2 * heads * m * d) + number(bytes_of_weights(config));
  return cost;
}

}  // namespace vkflux
