#include "autograd/ops/reduce.h"

#include <algorithm>
#include <array>
#include <vector>

#include "autograd/ops.h"
#include "autograd/ops/strided.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

constexpr uint32_t kLocal = 64;
constexpr int64_t kDirectRow = 256, kManyRows = 2048, kDirectLongRow = 8192;

// One pass down the columns of [outer, length] with rows of `inner`: [outer, chunks, inner].
Tensor sum_cols(const Tensor& x, int64_t outer, int64_t length, int64_t inner, const Chunks& c, float scale) {
  const bool vectors = inner % 4 == 0 && (length % 4 == 0 || outer == 1);
  const Tensor y = Tensor::empty(x.device(), Shape{outer, c.chunks, inner});
  args::ReduceColsArgs a{};
  a.count = u32(outer * c.chunks * inner / (vectors ? 4 : 1));
  a.extent = u32(length);
  a.inner = u32(inner);
  a.chunk = u32(c.chunk);
  a.chunks = u32(c.chunks);
  a.scale = scale;
  const auto n = static_cast<double>(outer * length);
  run(x.device(), {spec::ReduceCols{.LOCAL = kLocal}, vectors ? "f32" : "element"}, {x, y}, a,
      groups_1d(ceil_div(a.count, kLocal)), {n, 4 * n});
  return y;
}

Tensor sum_rows(const Tensor& x, int64_t rows, int64_t length, float scale) {
  const Tensor y = Tensor::empty(x.device(), Shape{rows});
  const bool vectors = length % 4 == 0 || rows == 1;
  const auto n = static_cast<double>(rows * length);
  run(x.device(), spec::ReduceRows{.LOCAL = kLocal, .VECTORS = vectors}, {x, y},
      args::ReduceRowsArgs{u32(rows), u32(length), scale},
      groups_1d(ceil_div(static_cast<uint64_t>(rows), kLocal)), {n, 4 * n});
  return y;
}

// The marked dimensions summed, in one pass per run of neighbouring dimensions.
Tensor reduce(const Tensor& x, const std::array<bool, Shape::kMaxRank>& reduced, const Shape& result,
              float scale) {
  if (x.numel() == 0 || result.numel() == 0) return Tensor::zeros(x.device(), result);
  std::vector<std::pair<int64_t, bool>> runs;
  for (int i = 0; i < x.rank(); ++i) {
    const bool r = reduced[static_cast<size_t>(i)];
    if (x.dim(i) == 1) continue;
    if (runs.empty() || runs.back().second != r) {
      runs.emplace_back(x.dim(i), r);
    } else {
      runs.back().first *= x.dim(i);
    }
  }
  Tensor y = contiguous(x);
  bool scaled = false;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (!runs[i].second) continue;
    int64_t outer = 1, inner = 1;
    for (size_t j = 0; j < i; ++j) outer *= runs[j].first;
    for (size_t j = i + 1; j < runs.size(); ++j) inner *= runs[j].first;
    y = sum_middle(y, outer, runs[i].first, inner, scaled ? 1.0f : scale);
    runs[i].first = 1;
    scaled = true;
  }
  if (!scaled && scale != 1) y = affine(y, scale);
  return y.view(result);
}

Tensor taped_reduce(const char* name, const Tensor& x, const std::vector<int>& dims, bool keep,
                    bool average) {
  expect(name, x.dtype() == DType::f32, "an f32 tensor is needed", {&x});
  std::array<bool, Shape::kMaxRank> reduced{};
  for (int d : dims) {
    const int i = d < 0 ? d + x.rank() : d;
    expect(name, i >= 0 && i < x.rank(), "no such dimension", {&x});
    reduced[static_cast<size_t>(i)] = true;
  }
  Shape kept, result;
  int64_t n = 1;
  for (int i = 0; i < x.rank(); ++i) {
    const bool r = reduced[static_cast<size_t>(i)];
    if (r) n *= x.dim(i);
    kept.push_back(r ? 1 : x.dim(i));
    if (!r || keep) result.push_back(r ? 1 : x.dim(i));
  }
  const float scale = average && n > 0 ? static_cast<float>(1.0 / static_cast<double>(n)) : 1.0f;
  Tensor y;
  {
    const auto pause = Tape::pause();
    y = reduce(x, reduced, result, scale).alias();
  }
  if (Tape* tape = Tape::wants({&x})) {
    tape->push(name, {y}, [x = x.key(), id = y.id(), kept, scale](Grads& g) {
      const Tensor dy = scale == 1 ? g.of(id) : affine(g.of(id), scale);
      g.add(x, expand(dy.view(kept), x.shape()));
    });
  }
  return y;
}

std::vector<int> all_dims(const Tensor& x) {
  std::vector<int> dims;
  for (int i = 0; i < x.rank(); ++i) dims.push_back(i);
  return dims;
}

}  // namespace

Chunks chunk_rows(int64_t rows, int64_t lanes) {
  constexpr int64_t kLanes = 16384, kFewRows = 64, kMaxChunks = 64, kMinChunk = 16;
  int64_t chunks = 1;
  if (rows > kFewRows) {
    chunks =
        std::clamp<int64_t>(kLanes / std::max<int64_t>(lanes, 1), 1, std::min(kMaxChunks, rows / kMinChunk));
  }
  const int64_t chunk = (rows + chunks - 1) / chunks;
  return {chunk, (rows + chunk - 1) / chunk};
}

Tensor sum_middle(const Tensor& x, int64_t outer, int64_t n, int64_t inner, float scale) {
  if (inner == 1) {
    if (n <= kDirectRow || (outer >= kManyRows && n <= kDirectLongRow)) return sum_rows(x, outer, n, scale);
    const int64_t rows = (n + kFlatRow - 1) / kFlatRow;
    const Chunks c = chunk_rows(rows, outer * kFlatRow / 4);
    const Tensor partial = sum_cols(x, outer, n, kFlatRow, c, 1);
    return sum_middle(partial, outer, c.chunks * kFlatRow, 1, scale);
  }
  const Chunks c = chunk_rows(n, inner % 4 == 0 ? outer * inner / 4 : outer * inner);
  if (c.chunks == 1) return sum_cols(x, outer, n * inner, inner, c, scale).view(Shape{outer * inner});
  return sum_middle(sum_cols(x, outer, n * inner, inner, c, 1), outer, c.chunks, inner, scale);
}

Tensor sum(const Tensor& x, const std::vector<int>& dims, bool keep) {
  return taped_reduce("sum", x, dims, keep, false);
}

Tensor mean(const Tensor& x, const std::vector<int>& dims, bool keep) {
  return taped_reduce("mean", x, dims, keep, true);
}

Tensor sum_all(const Tensor& x) {
  return sum(x, all_dims(x));
}

Tensor mean_all(const Tensor& x) {
  return mean(x, all_dims(x));
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  std::array<bool, Shape::kMaxRank> reduced{};
  for (int i = 1; i <= x.rank(); ++i) {
    reduced[static_cast<size_t>(x.rank() - i)] = i > shape.rank() || (shape[-i] == 1 && x.dim(-i) != 1);
  }
  const auto pause = Tape::pause();
  return reduce(x, reduced, shape, 1);
}

}  // namespace vkflux::op
