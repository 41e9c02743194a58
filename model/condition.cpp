#include "model/condition.h"

#include <fmt/format.h>

#include "autograd/ops.h"
#include "vk/error.h"

namespace vkflux {

template <class Fn>
Condition Condition::map(const Fn& fn) const {
  Condition out;
  for (const auto& [name, x] : parts_) out.parts_.emplace_back(name, fn(x));
  return out;
}

Tensor Condition::operator[](std::string_view name) const {
  for (const auto& [key, x] : parts_) {
    if (key == name) return x;
  }
  return {};
}

void Condition::set(std::string name, Tensor value) {
  for (auto& [key, x] : parts_) {
    if (key != name) continue;
    x = std::move(value);
    return;
  }
  parts_.emplace_back(std::move(name), std::move(value));
}

uint64_t Condition::bytes() const {
  uint64_t sum = 0;
  for (const auto& [name, x] : parts_) sum += x.bytes();
  return sum;
}

Condition Condition::narrow(int64_t start, int64_t n) const {
  return map([&](const Tensor& x) { return op::narrow(x, 0, start, n); });
}

Condition Condition::pick(std::span<const int32_t> ids) const {
  if (parts_.empty()) return {};
  for (const int32_t id : ids) {
    if (id < 0 || id >= batch())
      throw Error(ErrorCode::invalid_argument, fmt::format("picture {} of a condition of {}", id, batch()));
  }
  const auto n = static_cast<int64_t>(ids.size());
  const Tensor rows = Tensor::from(parts_.front().second.device(), ids, {n});
  return map([&](const Tensor& x) {
    Shape shape = x.shape();
    const int64_t held = shape[0];
    shape[0] = n;
    return op::reshape(op::gather_rows(op::reshape(x, {held, x.numel() / held}), rows), shape);
  });
}

Condition Condition::repeat(int64_t batch) const {
  return map([&](const Tensor& x) {
    if (x.dim(0) == batch) return x;
    Shape shape = x.shape();
    shape[0] = batch;
    return op::expand(x, shape);
  });
}

Condition Condition::contiguous() const {
  return map([](const Tensor& x) { return op::contiguous(x); });
}

Condition Condition::concat(const std::vector<Condition>& all) {
  Condition out;
  if (all.empty()) return out;
  for (const auto& [name, first] : all.front().parts_) {
    std::vector<Tensor> parts;
    for (const Condition& c : all) {
      parts.push_back(c[name]);
      if (!parts.back().defined())
        throw Error(ErrorCode::invalid_argument, fmt::format("a condition without {}", name));
    }
    out.parts_.emplace_back(name, op::concat(parts, 0));
  }
  return out;
}

}  // namespace vkflux
