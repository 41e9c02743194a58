#include "app/verify/host_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <set>

#include "app/verify/options.h"
#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using Names = std::initializer_list<const char*>;
using Pairs = std::initializer_list<std::pair<const char*, const char*>>;

constexpr int64_t kMaxBlocks = 100000;  // no model has more; keeps a bad count from filling the memory
constexpr double kDropBelow = -1e4;     // what masks use for -infinity in half precision lies below

const io::Json* find(const io::Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

std::optional<double> scalar(const io::Json& value, int depth = 0) {
  constexpr int kMaxDepth = 8;
  if (value.is_array() && !value.empty() && depth < kMaxDepth) return scalar(value.front(), depth + 1);
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  if (!value.is_number()) return {};
  const double x = value.get<double>();
  return std::isfinite(x) ? std::optional(x) : std::nullopt;
}
std::optional<double> first_scalar(const io::Json& object, Names names) {
  for (const char* name : names) {
    const io::Json* value = find(object, name);
    if (!value) continue;
    if (const auto x = scalar(*value)) return x;
  }
  return {};
}

std::optional<int64_t> integer(const io::Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (!value.is_number_integer()) return {};
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return {};
  return value.get<int64_t>();
}
std::optional<int64_t> first_count(const io::Json& object, Names names, int64_t least) {
  for (const char* name : names) {
    const io::Json* value = find(object, name);
    const auto n = value ? integer(*value) : std::nullopt;
    if (n && *n >= least) return n;
  }
  return {};
}
std::optional<std::pair<int64_t, int64_t>> first_pair(const io::Json& object, Pairs names) {
  for (const auto& [first, second] : names) {
    const auto a = first_count(object, {first}, 1), b = first_count(object, {second}, 1);
    if (a && b) return std::pair(*a, *b);
  }
  return {};
}

// As the reference's language writes a value into a text.
std::string written(const io::Json& value) {
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

// Correctly rounded on the decimal digits, ties by the exact binary value.
double round_decimals(double x, int decimals) {
  return std::strtod(fmt::format("{:.{}f}", x, decimals).c_str(), nullptr);
}

void add_listed(const io::Json& object, std::set<int64_t>& layers) {
  constexpr std::string_view kPrefix = "single:";
  for (const char* name : {"all_single_layer_keys", "single_layer_keys"}) {
    const io::Json* list = find(object, name);
    if (!list || !list->is_array()) continue;
    for (const io::Json& item : *list) {
      const std::string key = item.is_string() ? item.get<std::string>() : std::string();
      if (key.rfind(kPrefix, 0) != 0) continue;
      int64_t index = 0;
      const char* end = key.data() + key.size();
      const auto [at, error] = std::from_chars(key.data() + kPrefix.size(), end, index);
      if (error == std::errc() && at == end && index >= 0) layers.insert(index);
    }
  }
}

// Rows without any keep get their first key, so that a softmax has something to normalise.
void keep_first_of_empty_rows(std::vector<uint8_t>& mask, int64_t batch, int64_t keys) {
  for (int64_t b = 0; b < batch && keys > 0; ++b) {
    const auto row = mask.begin() + b * keys;
    if (std::none_of(row, row + keys, [](uint8_t keep) { return keep != 0; })) *row = 1;
  }
}

template <class T, class Keep>
std::vector<uint8_t> key_mask(std::span<const T> mask, int64_t batch, int64_t keys, Keep keep) {
  if (static_cast<int64_t>(mask.size()) != batch * keys) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("key mask: {} values, [{}, {}] is needed", mask.size(), batch, keys));
  }
  std::vector<uint8_t> out(mask.size());
  std::transform(mask.begin(), mask.end(), out.begin(), [&](T v) { return static_cast<uint8_t>(keep(v)); });
  keep_first_of_empty_rows(out, batch, keys);
  return out;
}

}  // namespace

CallOptions::CallOptions(const io::Json& options) : options_(options) {
  if (const io::Json* sub = find(options_, "flux2_ttr")) students_ = *sub;
}

// Absent isn't null here: a type that is null is no single block.
bool CallOptions::is_single() const {
  return !options_.is_object() || !options_.contains("block_type") || options_["block_type"] == "single";
}

std::optional<int64_t> CallOptions::block_index() const {
  const io::Json* index = find(options_, "block_index");
  return index ? integer(*index) : std::nullopt;
}

std::string CallOptions::layer_key() const {
  const io::Json type =
      options_.is_object() ? options_.value("block_type", io::Json("single")) : io::Json("single");
  const io::Json* index = find(options_, "block_index");
  if (index && index->is_boolean()) return fmt::format("{}:{}", written(type), written(*index));
  return fmt::format("{}:{}", written(type), block_index().value_or(0));
}

bool CallOptions::selected(int64_t start, int64_t end) const {
  if (!is_single()) return false;
  const std::optional<int64_t> i = block_index();
  return !i || ((start < 0 || *i >= start) && (end < 0 || *i <= end));
}

std::optional<double> CallOptions::sigma() const {
  for (const io::Json* map : {&options_, &students_}) {
    if (const auto x = first_scalar(*map, {"sigma", "current_sigma", "sigmas"})) return x;
  }
  return {};
}

double CallOptions::cfg_scale(double fallback) const {
  if (const auto x = first_scalar(options_, {"cfg_scale", "cond_scale", "guidance_scale", "scale"}))
    return *x;
  return first_scalar(students_, {"cfg_scale", "cond_scale", "guidance_scale"}).value_or(fallback);
}

std::optional<int64_t> CallOptions::conditioning_tokens(int64_t keys) const {
  for (const io::Json* map : {&options_, &students_}) {
    const auto n =
        first_count(*map, {"conditioning_token_count", "cond_token_count", "prefix_token_count"}, 0);
    if (n) return std::min(*n, keys);
  }
  return {};
}

int64_t CallOptions::text_tokens(int64_t keys, int64_t guess) const {
  auto n = first_count(options_, {"text_token_count", "txt_token_count", "prefix_tokens"}, 0);
  if (!n) n = first_count(students_, {"text_tokens_guess"}, 0);
  return std::min(n.value_or(guess), keys);
}

std::pair<int64_t, int64_t> CallOptions::resolution(int64_t keys, int64_t text) const {
  for (const io::Json* map : {&options_, &students_}) {
    const auto size = first_pair(*map, {{"width", "height"},
                                        {"latent_width", "latent_height"},
                                        {"image_width", "image_height"},
                                        {"w", "h"}});
    if (size) return *size;
  }
  const int64_t tokens = std::max<int64_t>(1, keys - text);
  const auto side = static_cast<int64_t>(std::nearbyint(std::sqrt(static_cast<double>(tokens))));
  return side * side == tokens ? std::pair(side, side) : std::pair(tokens, int64_t{1});
}

std::optional<CallOptions::StepId> CallOptions::step_id() const {
  constexpr int kDecimals = 10;
  for (const char* name : {"step", "current_step", "sample_step", "timestep", "sigma_idx", "denoise_step"}) {
    const io::Json* value = find(options_, name);
    if (value && (value->is_number_integer() || value->is_boolean() || value->is_string()))
      return StepId{name, *value};
  }
  if (const auto level = sigma()) return StepId{"sigma", round_decimals(*level, kDecimals)};
  return {};
}

std::vector<int64_t> CallOptions::single_layers(int64_t start, int64_t end) const {
  std::set<int64_t> layers;
  for (const io::Json* map : {&options_, &students_}) {
    add_listed(*map, layers);
    const auto n = first_count(*map, {"num_single_blocks", "single_block_count", "total_single_blocks"}, 1);
    for (int64_t i = 0; n && *n <= kMaxBlocks && i < *n; ++i) layers.insert(i);
  }
  std::vector<int64_t> out;
  std::copy_if(layers.begin(), layers.end(), std::back_inserter(out),
               [&](int64_t i) { return (start < 0 || i >= start) && (end < 0 || i <= end); });
  return out;
}

double host_threshold(const io::Json& value) {
  const double x = verify::as_number(nlohmann::json(value)).value_or(0.5);
  return std::isfinite(x) ? x : 0.5;
}

double host_policy_threshold(const io::Json& value) {
  constexpr double kMargin = 1e-4;
  return std::clamp(host_threshold(value), kMargin, 1.0 - kMargin);
}

double host_temperature(const io::Json& value) {
  constexpr double kLeast = 1e-3;
  const double x = verify::as_number(nlohmann::json(value)).value_or(1.0);
  return std::isfinite(x) ? std::max(kLeast, x) : 1.0;
}

bool host_policy_is_stochastic(const io::Json& value) {
  if (!value.is_string()) return false;
  const std::string text = value.get<std::string>();
  std::string word(trim(text));
  for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  constexpr std::array<std::string_view, 5> kWords{"sample", "sampling", "stochastic", "bernoulli", "gumbel"};
  return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
}

std::optional<std::vector<float>> host_route_mask(const io::Json& value) {
  if (!value.is_array()) {
    const std::optional<double> x =
        value.is_string() ? std::nullopt : verify::as_number(nlohmann::json(value));
    return x ? std::optional(std::vector<float>{static_cast<float>(*x)}) : std::nullopt;
  }
  std::vector<float> out;
  for (const io::Json& item : value) {
    const std::optional<std::vector<float>> part = host_route_mask(item);
    if (!part) return {};
    out.insert(out.end(), part->begin(), part->end());
  }
  return out;
}

bool key_mask_supported(const std::vector<int64_t>& shape, int64_t batch, int64_t keys) {
  if (shape.size() < 2 || shape.size() > 4 || shape.front() != batch || shape.back() != keys) return false;
  return std::all_of(shape.begin() + 1, shape.end() - 1, [](int64_t n) { return n == 1; });
}

std::vector<uint8_t> boolean_key_mask(std::span<const uint8_t> mask, int64_t batch, int64_t keys) {
  return key_mask(mask, batch, keys, [](uint8_t v) { return v != 0; });
}

std::vector<uint8_t> additive_key_mask(std::span<const float> mask, int64_t batch, int64_t keys) {
  return key_mask(mask, batch, keys, [](float v) { return v > kDropBelow; });
}

}  // namespace vkflux
