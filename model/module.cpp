#include "model/module.h"

#include <fmt/format.h>

#include <cmath>

#include "model/philox.h"
#include "vk/error.h"

namespace vkflux {
namespace {

uint64_t fnv1a(std::string_view s) {
  uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : s) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return h;
}

std::vector<float> values(const Init& init, size_t n, uint64_t seed) {
  if (init.kind == Init::Kind::constant) return std::vector<float>(n, init.a);
  std::vector<float> out(n);
  for (size_t i = 0; i < n; ++i) {
    const auto u = philox_uniform_pair(seed, static_cast<uint32_t>(i), 0);
    const double x = init.kind == Init::Kind::normal
                         ? std::sqrt(-2 * std::log(u.first)) * std::sin(2 * M_PI * u.second)
                         : 2 * u.first - 1;
    out[i] = static_cast<float>(x * init.a);
  }
  return out;
}

}  // namespace

int64_t count(const std::vector<Param>& params) {
  int64_t n = 0;
  for (const Param& p : params) n += p.shape.numel();
  return n;
}

std::vector<std::pair<std::string, Shape>> layout(const std::vector<Param>& params) {
  std::vector<std::pair<std::string, Shape>> out;
  for (const Param& p : params) out.emplace_back(p.name, p.shape);
  return out;
}

std::vector<Tensor> tensors(const std::vector<Param>& params) {
  std::vector<Tensor> out;
  for (const Param& p : params) out.push_back(*p.tensor);
  return out;
}

void place(const std::vector<Param>& params, const Arena& arena, size_t first) {
  if (first + params.size() > arena.size()) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{} parameters from {} don't fit in an arena of {} tensors", params.size(), first,
                            arena.size()));
  }
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor& t = arena[first + i];
    if (!(t.shape() == params[i].shape)) {
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("{} is {}, its place in the arena {}", params[i].name, params[i].shape.str(),
                              t.shape().str()));
    }
    *params[i].tensor = t;
  }
}

void allocate(const std::vector<Param>& params, Device& device) {
  for (const Param& p : params) *p.tensor = Tensor::zeros(device, p.shape, DType::f32, MemoryClass::weights);
}

Init xavier_uniform(const Shape& weight) {
  int64_t area = 1;
  for (int i = 2; i < weight.rank(); ++i) area *= weight[i];
  const double fans = static_cast<double>((weight[0] + weight[1]) * area);
  return {Init::Kind::uniform, static_cast<float>(std::sqrt(6.0 / fans))};
}

void initialise(const std::vector<Param>& params, const InitRule& rule, uint64_t seed) {
  for (const Param& p : params) {
    const std::vector<float> host =
        values(rule(p), static_cast<size_t>(p.shape.numel()), seed ^ fnv1a(p.name));
    p.tensor->copy_from_host(std::span<const float>(host));
  }
}

}  // namespace vkflux
