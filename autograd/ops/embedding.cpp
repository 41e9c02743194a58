#include <algorithm>

#include "autograd/ops.h"
#include "autograd/ops/binding.h"
#include "autograd/ops/rows.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

Tensor gather(const Tensor& table, const Tensor& ids, const Shape& shape) {
  const Tensor y = Tensor::empty(table.device(), shape);
  const int64_t cols = table.dim(1), count = ids.numel();
  const ColumnShape s = column_shape(table.device(), 1, count, cols);
  const uint32_t format = table.dtype() == DType::f32 ? 0 : table.dtype() == DType::f16 ? 1 : 2;
  const double n = static_cast<double>(y.numel());
  const int64_t size = size_of(table.dtype()), all = table.dim(0);
  // As many rows of the table at a time as a binding has room for, in whole 256 bytes.
  const int64_t most = max_binding_bytes(table.device().caps()) / (size * cols);
  const int64_t piece = most >= all ? all : std::max<int64_t>(most / 128 * 128, 1);
  const Tensor flat = table.with_strides({table.numel()}, {1});
  for (int64_t first = 0; first < all; first += piece) {
    const int64_t rows = std::min(piece, all - first);
    run(table.device(), spec::GatherRows{.LOCAL = s.local, .VEC4 = s.vec4, .FORMAT = format},
        {flat.slice(0, first * cols, rows * cols), ids, y},
        args::GatherRowsArgs{u32(count), u32(cols), s.rows_per_group, u32(all), u32(first), u32(rows)},
        s.groups, {0, n * static_cast<double>(4 + size)});
  }
  return y;
}

Tensor scatter(const Tensor& dy, const Tensor& ids, const Shape& table) {
  constexpr uint32_t kLocal = 64;
  Device& device = dy.device();
  const int64_t rows = table[0], cols = table[1], count = ids.numel();
  const Tensor chain = Tensor::empty(device, {rows + count}, DType::i32, MemoryClass::scratch);
  const double reads = static_cast<double>(rows) * static_cast<double>(count);
  run(device, spec::ScatterChains{.LOCAL = kLocal}, {count > 0 ? ids : chain, chain},
      args::ScatterChainsArgs{u32(count), u32(rows)},
      groups_1d(ceil_div(static_cast<uint64_t>(rows), kLocal)),
      {reads, 4.0 * static_cast<double>(rows + 2 * count)});
  const Tensor dx = Tensor::empty(device, table);
  const ColumnShape s = column_shape(device, 1, rows, cols);
  const double n = static_cast<double>(dy.numel());
  run(device, spec::ScatterRows{.LOCAL = s.local, .VEC4 = s.vec4}, {count > 0 ? dy : dx, chain, dx},
      args::ScatterRowsArgs{u32(rows), u32(cols), s.rows_per_group}, s.groups,
      {n, 4 * (n + static_cast<double>(dx.numel()))});
  return dx;
}

Tensor gather_taped(const char* op, const Tensor& table_in, const Tensor& ids_in) {
  expect(op,
         table_in.defined() && table_in.rank() == 2 && table_in.dim(1) > 0 && ids_in.defined() &&
             ids_in.dtype() == DType::i32 && ids_in.rank() < Shape::kMaxRank &&
             (table_in.dim(0) > 0 || ids_in.numel() == 0),
         "needs rows [V, C] and i32 ids", {&table_in, &ids_in});
  Shape shape = ids_in.shape();
  shape.push_back(table_in.dim(1));
  const Tensor ids = dense(ids_in), y = gather(dense(table_in), ids, shape);
  Tape* t = table_in.dtype() == DType::f32 ? Tape::wants({&table_in}) : nullptr;
  if (t) {
    t->push(op, {y}, [table_in, ids, id = y.id()](Grads& g) {
      g.add(table_in, scatter(dense(g.of(id)), ids, table_in.shape()));
    });
  }
  return y;
}

}  // namespace

Tensor op::embedding(const Tensor& table, const Tensor& ids) {
  expect("embedding",
         table.defined() &&
             (table.dtype() == DType::f32 || table.dtype() == DType::f16 || table.dtype() == DType::bf16),
         "needs an f32, f16 or bf16 table", {&table, &ids});
  return gather_taped("embedding", table, ids);
}

Tensor op::gather_rows(const Tensor& x, const Tensor& ids) {
  expect("gather_rows", x.defined() && x.dtype() == DType::f32 && ids.defined() && ids.rank() == 1,
         "needs f32 x[R, C] and ids[M]", {&x, &ids});
  return gather_taped("gather_rows", x, ids);
}

}  // namespace vkflux
