#include "autograd/ops/strided.h"

#include <algorithm>

namespace vkflux::op {

StridedLoop strided_loop(const Shape& shape, const std::vector<Shape>& strides) {
  StridedLoop loop;
  loop.strides.resize(strides.size());
  int n = 0;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    if (shape[i] == 1) continue;
    bool merge = n > 0;
    for (size_t k = 0; merge && k < strides.size(); ++k) {
      const auto last = static_cast<size_t>(n - 1);
      merge = strides[k][i] == loop.strides[k][last] * loop.shape[last];
    }
    if (merge) {
      loop.shape[static_cast<size_t>(n - 1)] *= shape[i];
      continue;
    }
    loop.shape[static_cast<size_t>(n)] = shape[i];
    for (size_t k = 0; k < strides.size(); ++k) loop.strides[k][static_cast<size_t>(n)] = strides[k][i];
    ++n;
  }
  if (n == 0) {
    loop.shape[0] = 1;
    for (auto& s : loop.strides) s[0] = 1;
    n = 1;
  }
  loop.rank = n;
  return loop;
}

Inner inner_mode(const StridedLoop& loop, size_t operand, int64_t lead) {
  const auto& s = loop.strides[operand];
  if (s[0] == 0) return Inner::splat;
  bool aligned = s[0] == 1 && lead % 4 == 0;
  for (int i = 1; i < loop.rank; ++i) aligned = aligned && s[static_cast<size_t>(i)] % 4 == 0;
  return aligned ? Inner::vector : Inner::step;
}

Divisors divisors(const StridedLoop& loop, int64_t unit) {
  Divisors out;
  for (int i = 0; i + 1 < loop.rank; ++i) {
    const auto at = static_cast<size_t>(i);
    const auto d = static_cast<uint64_t>(i == 0 ? loop.shape[0] / unit : loop.shape[at]);
    uint32_t shift = 0;
    while ((uint64_t{1} << shift) < d) ++shift;
    out.size[at] = static_cast<uint32_t>(d);
    out.magic[at] = static_cast<uint32_t>(
        (uint64_t{1} << 32) * ((uint64_t{1} << shift) - d) / std::max<uint64_t>(d, 1) + 1);
    out.shifts |= shift << (5 * i);
  }
  return out;
}

Shape broadcast_strides(const Tensor& x, const Shape& shape) {
  Shape out = shape;
  for (int i = 1; i <= shape.rank(); ++i) {
    const bool repeats = i > x.rank() || (x.dim(-i) == 1 && shape[-i] != 1);
    out[-i] = repeats ? 0 : x.strides()[-i];
  }
  return out;
}

Shape broadcast_shape(const char* op, const Tensor& a, const Tensor& b) {
  const Tensor& longer = a.rank() >= b.rank() ? a : b;
  Shape out = longer.shape();
  for (int i = 1; i <= out.rank(); ++i) {
    const int64_t da = i <= a.rank() ? a.dim(-i) : 1, db = i <= b.rank() ? b.dim(-i) : 1;
    expect(op, da == db || da == 1 || db == 1, "the shapes don't broadcast", {&a, &b});
    out[-i] = da == 1 ? db : da;
  }
  return out;
}

}  // namespace vkflux::op
