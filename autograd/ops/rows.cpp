#include "autograd/ops/rows.h"

#include <algorithm>
#include <bit>

#include "autograd/ops.h"
#include "autograd/ops/flat.h"
#include "autograd/tape.h"

namespace vkflux {
namespace {

constexpr int64_t kMinChunk = 16;  // rows per invocation below which splitting costs more than it gains

uint32_t local_size(Device& device, uint64_t units) {
  const uint32_t least = device.device_class() == DeviceClass::cpu ? device.caps().subgroup_size : 32;
  return static_cast<uint32_t>(std::clamp<uint64_t>(std::bit_ceil(units), std::min(least, 256u), 256));
}

uint64_t units_of(int64_t cols) {
  return static_cast<uint64_t>(cols % 4 == 0 ? cols / 4 : cols);
}

struct Chunks {
  int64_t length, count;
};

Chunks split_rows(Device& device, int64_t batch, int64_t rows, uint64_t units) {
  const uint64_t wanted = device.device_class() == DeviceClass::cpu ? 2048 : 65536;
  const uint64_t per_chunk = std::max<uint64_t>(units * static_cast<uint64_t>(batch), 1);
  const int64_t most = std::clamp<int64_t>((rows + kMinChunk - 1) / kMinChunk, 1, 512);
  const int64_t n = std::clamp<int64_t>(static_cast<int64_t>(wanted / per_chunk), 1, most);
  const int64_t length = std::max<int64_t>((rows + n - 1) / n, 1);
  return {length, std::max<int64_t>((rows + length - 1) / length, 1)};
}

}  // namespace

RowShape row_shape(Device& device, const char* op, int64_t cols) {
  const uint32_t vec4 = cols % 4 == 0 ? 1 : 0;
  const uint32_t sg = device.caps().subgroup_size;
  if (use_simd(device, op)) return {sg, 1, vec4, "f32"};
  const uint64_t lanes = std::bit_ceil(std::max<uint64_t>(units_of(cols) / 2, 1));
  return {static_cast<uint32_t>(std::clamp<uint64_t>(lanes, 32, 256)), 0, vec4, "f32"};
}

RowShape wide_row_shape(Device& device, const char* op, int64_t cols) {
  RowShape s = row_shape(device, op, cols);
  if (use_wide(device, op, cols)) s.variant = "wide";
  return s;
}

ColumnShape column_shape(Device& device, int64_t batch, int64_t rows, int64_t cols) {
  const uint64_t units = units_of(cols);
  const uint32_t local = local_size(device, units);
  // On a CPU a workgroup costs as much as a few thousand elements; a GPU wants many of them.
  const uint64_t target = device.device_class() == DeviceClass::cpu ? 2048 : 512;
  uint64_t per_group = std::max<uint64_t>(target / local, 1);
  const uint64_t n = static_cast<uint64_t>(rows);
  per_group = std::max(per_group, ceil_div(n, 65535));
  return {"f32",
          local,
          cols % 4 == 0 ? 1u : 0u,
          static_cast<uint32_t>(per_group),
          {static_cast<uint32_t>(ceil_div(units, local)), static_cast<uint32_t>(ceil_div(n, per_group)),
           u32(batch)}};
}

ColumnShape wide_column_shape(Device& device, const char* op, int64_t batch, int64_t rows, int64_t cols) {
  if (!use_wide(device, op, cols)) return column_shape(device, batch, rows, cols);
  // A group of rows is worth a workgroup's price, and reads what it needs per column once.
  const int64_t wanted = std::max<int64_t>(8192 / cols, 2);
  const int64_t per_group = std::clamp<int64_t>(wanted, (rows + 65534) / 65535, std::max<int64_t>(rows, 1));
  return {"wide",
          device.caps().subgroup_size,
          1,
          u32(per_group),
          {1, u32((rows + per_group - 1) / per_group), u32(batch)}};
}

Tensor dense(const Tensor& x) {
  const Tape::Scope scope = Tape::pause();
  return op::contiguous(x);
}

RowView row_view(const Tensor& x) {
  const int64_t b = x.dim(0), c = x.dim(1);
  const bool packed = c <= 1 || x.strides()[1] == 1;
  const int64_t stride = b > 1 ? x.strides()[0] : c;
  const bool aligned =
      static_cast<uint64_t>(x.offset()) * size_of(x.dtype()) % x.device().caps().buffer_alignment == 0;
  if (packed && aligned && stride >= 0 && (c % 4 != 0 || stride % 4 == 0)) return {x, u32(stride)};
  return {dense(x), u32(c)};
}

ColumnSums column_sums(const Tensor& dy, const Tensor& x, const Tensor& stats, int64_t batch, int64_t rows,
                       int64_t cols, bool plain, bool weighted) {
  ColumnSums out;
  if (!plain && !weighted) return out;
  Device& device = dy.device();
  if (plain) out.plain = Tensor::empty(device, {batch, cols});
  if (weighted) out.weighted = Tensor::empty(device, {batch, cols});
  const uint64_t units = units_of(cols);
  const Chunks chunks = split_rows(device, batch, rows, units);
  ColumnSums partial = out;
  if (chunks.count > 1) {
    if (plain)
      partial.plain = Tensor::empty(device, {batch, chunks.count, cols}, DType::f32, MemoryClass::scratch);
    if (weighted)
      partial.weighted = Tensor::empty(device, {batch, chunks.count, cols}, DType::f32, MemoryClass::scratch);
  }
  const uint32_t local = local_size(device, units);
  const double n = static_cast<double>(batch) * static_cast<double>(rows) * static_cast<double>(cols);
  const spec::ColumnSums kernel{.LOCAL = local,
                                .VEC4 = cols % 4 == 0,
                                .HAS_STATS = stats.defined(),
                                .PLAIN = plain,
                                .WEIGHTED = weighted};
  // Unused bindings get any tensor of the call: the specialised kernel doesn't touch them.
  run(device, kernel,
      {dy, weighted ? x : dy, stats.defined() ? stats : dy, plain ? partial.plain : partial.weighted,
       weighted ? partial.weighted : partial.plain},
      args::ColumnSumsArgs{u32(rows), u32(cols), u32(chunks.length)},
      {static_cast<uint32_t>(ceil_div(units, local)), u32(chunks.count), u32(batch)},
      {weighted ? 4 * n : n, weighted ? 8 * n : 4 * n});
  if (chunks.count > 1) {
    if (plain) out.plain = column_sums(partial.plain, {}, {}, batch, chunks.count, cols, true, false).plain;
    if (weighted)
      out.weighted = column_sums(partial.weighted, {}, {}, batch, chunks.count, cols, true, false).plain;
  }
  return out;
}

}  // namespace vkflux
