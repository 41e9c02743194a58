#include "autograd/ops/matmul_engine.h"

#include <algorithm>
#include <string_view>

#include "autograd/ops/matmul_panels.h"
#include "autograd/ops/matmul_tiles.h"
#include "autograd/packed.h"

namespace vkflux {

bool fits_simd(const Gemm& g) {
  if (!aligned(g.a, 4, g.batch)) return false;
  if (b_packed(g)) {
    return g.form == GemmForm::nt && g.k % std::max<int64_t>(16, block_values(g.b.tensor.dtype())) == 0;
  }
  const int64_t b_texel = b_format(g) ? 8 : 4;
  if (!aligned(g.b, b_texel, g.batch)) return false;
  if (g.form == GemmForm::nt) return g.k % b_texel == 0;
  return vector_c(g);
}

namespace {

enum class Structure { tiles, rows, simd, panels };

// Rows of a tile in units of `unit`, at most `most` units: least estimated time, where a tile costs its units
// plus the fetches of B.
uint32_t row_units(int64_t m, int64_t unit, uint32_t most) {
  uint32_t best = most;
  double best_cost = 1e30;
  for (uint32_t units : {1u, 2u, 3u, 4u, 6u, 8u}) {
    if (units > most) break;
    const double tiles =
        static_cast<double>(ceil_div(static_cast<uint64_t>(m), static_cast<uint64_t>(unit * units)));
    const double cost = tiles * (static_cast<double>(unit * units) + 8.0);
    if (cost <= best_cost) {
      best_cost = cost;
      best = units;
    }
  }
  return best;
}

Tile simd_tile(const Caps& caps, const Gemm& g) {
  const uint32_t sg = caps.subgroup_size, format = b_format(g);
  const bool nn = g.form == GemmForm::nn, tn = g.form == GemmForm::tn;
  // Column groups per lane: two for 16-bit texels of eight columns, for narrow subgroups, and for nn where C
  // is wide enough to fill them (measured: 16 x 64 beats 32 x 32 there).
  const bool wide_nn = nn && !format && sg == 8 && (g.n % 64 == 0 || g.n >= 256);
  const uint32_t nv = (format && g.form != GemmForm::nt) || sg == 4 || wide_nn ? 2 : 1;
  const int64_t max_rows = wide_nn ? 16 : 32;  // more accumulators spill too many registers
  const int64_t unit = tn ? 4 : sg;
  const uint32_t ma = row_units(g.m, unit, static_cast<uint32_t>(max_rows / unit));
  // nt, f32: several texels of a row of B at once, since the later ones are still in the nearest cache then.
  const uint32_t wanted = g.form == GemmForm::nt && !format ? (ma == 1 ? 4 : 2) : 1;
  const uint32_t ku = g.k % (4 * wanted) == 0 ? wanted : 1;
  const char* nt = b_packed(g)   ? vector_c(g) ? "nt_packed" : "nt_packed_scalar"
                   : vector_c(g) ? "nt"
                                 : "nt_scalar";
  const char* variant = nn ? "nn" : tn ? "tn" : nt;
  const spec::MatmulSimd constants{.SG = sg,
                                   .MA = ma,
                                   .NV = nv,
                                   .B_FORMAT = format,
                                   .FLAGS = flags(g),
                                   .ACT = g.act,
                                   .TAIL = nn && g.k % 4 != 0,
                                   .KU = ku};
  return {{constants, variant}, unit * ma, 4ll * sg * nv, b_packed(g) ? 256 : 16};
}

// Parts of K: more than one when the output has too few tiles for the device and K is long.
int64_t split_count(DeviceClass cls, const Gemm& g, const Tile& t) {
  const bool plain = !g.bias.defined() && !g.pre.defined() && g.act == op::Activation::none;
  const bool dense = g.batch == 1 && g.c.ld == g.n && g.c.offset == 0;
  if (!plain || !dense) return 1;
  const int64_t wanted_tiles = cls == DeviceClass::cpu ? 16 : 256,
                least_k = cls == DeviceClass::cpu ? 512 : 256;
  const int64_t tiles = tile_count(g, t.rows, t.columns);
  return std::clamp<int64_t>(std::min(wanted_tiles / tiles, g.k / least_k), 1, 64);
}

// B as the kernels bind it: packed rows as bytes, counted in texels or words.
struct BoundB {
  Tensor tensor;
  int64_t ld, offset;
  double bytes;
};

BoundB bound_b(const Gemm& g, bool texels) {
  const double rows = static_cast<double>(g.form == GemmForm::nt ? g.n : g.k);
  const DType t = g.b.tensor.dtype();
  if (!b_packed(g)) {
    const double columns = static_cast<double>(g.form == GemmForm::nt ? g.k : g.n);
    return {g.b.tensor, g.b.ld, g.b.offset, static_cast<double>(size_of(t)) * rows * columns};
  }
  int64_t lead = 0;
  const Tensor bytes = g.b.tensor.covering(&lead);
  const auto row = static_cast<int64_t>(row_bytes(t, g.b.ld)), unit = int64_t{texels ? 16 : 4};
  return {bytes, row / unit, lead / unit, rows * static_cast<double>(row)};
}

void launch(Device& device, const Gemm& g, const Tile& t, Structure s, int64_t splits) {
  const BoundB b = bound_b(g, s != Structure::tiles);
  const int64_t k_stored = s == Structure::panels ? panel_k(g.k) : g.k;
  const int64_t chunk = static_cast<int64_t>(ceil_div(static_cast<uint64_t>(k_stored),
                                                      static_cast<uint64_t>(splits * t.step))) *
                        t.step;
  const args::MatmulArgs a{u32(g.m),
                           u32(g.n),
                           u32(k_stored),
                           u32(g.a.ld),
                           u32(b.ld),
                           u32(g.c.ld),
                           u32(g.a.offset),
                           u32(b.offset),
                           u32(g.c.offset),
                           u32(g.a.batch_stride),
                           u32(g.b.batch_stride),
                           u32(g.c.batch_stride),
                           u32(splits),
                           u32(chunk),
                           g.alpha};
  const Groups groups{static_cast<uint32_t>(ceil_div(a.m, static_cast<uint64_t>(t.rows))),
                      static_cast<uint32_t>(ceil_div(a.n, static_cast<uint64_t>(t.columns))),
                      u32(g.batch * splits)};
  const double m = static_cast<double>(g.m), n = static_cast<double>(g.n), k = static_cast<double>(g.k),
               batch = static_cast<double>(g.batch);
  const Cost cost{2 * batch * m * n * k, batch * (4 * m * k + b.bytes + 4 * m * n)};
  const Tensor bias = g.bias.defined() ? g.bias : g.a.tensor, pre = g.pre.defined() ? g.pre : g.c.tensor;
  if (s == Structure::simd || s == Structure::panels) {
    const Tensor before = g.accumulate ? g.c.tensor : g.a.tensor;
    run(device, t.kernel, {g.a.tensor, b.tensor, bias, before, g.c.tensor, pre}, a, groups, cost);
  } else if (t.counts_saturated) {
    run(device, t.kernel, {g.a.tensor, b.tensor, bias, g.c.tensor, pre, saturation_place(device)}, a, groups,
        cost);
  } else {
    run(device, t.kernel, {g.a.tensor, b.tensor, bias, g.c.tensor, pre}, a, groups, cost);
  }
}

Tile choose_tile(Device& device, const Gemm& g, Structure s) {
  if (s == Structure::panels) return panel_tile(device.caps(), g);
  if (s == Structure::simd) return simd_tile(device.caps(), g);
  if (s == Structure::rows) return row_tile(g);
  if (const auto coop = coop_tile(device, g)) return *coop;
  return shared_tile(device, g);
}

void launch_split(Device& device, const Gemm& g, const Tile& plain_tile, Structure s, int64_t splits) {
  const int64_t stride = (g.m * g.n + 3) / 4 * 4;
  const Tensor partial = Tensor::empty(device, {splits, stride}, DType::f32, MemoryClass::scratch);
  Gemm part = g;
  part.c = {partial, g.n, stride, 0};
  part.accumulate = false;
  const Tile t = g.accumulate ? choose_tile(device, part, s) : plain_tile;
  launch(device, part, t, s, splits);
  const uint64_t n4 = static_cast<uint64_t>(stride / 4);
  const double count = static_cast<double>(stride * (splits + 1));
  run(device, spec::MatmulReduce{.LOCAL = 256, .ACCUMULATE = g.accumulate},
      {partial, g.accumulate ? g.c.tensor : partial, g.c.tensor},
      args::MatmulReduceArgs{static_cast<uint32_t>(n4), u32(splits), static_cast<uint32_t>(n4)},
      groups_1d(ceil_div(n4, 256)), {count, 4 * count});
}

const char* form_name(Structure s, const Tile& t) {
  if (s == Structure::simd) return "simd";
  if (s == Structure::rows) return "matvec";
  return std::string_view(t.kernel.shader) == spec::MatmulCoop::kShader ? "coop" : "gpu";
}

void multiply(Device& device, const Gemm& g, Structure s) {
  const Tile t = choose_tile(device, g, s);
  if (s != Structure::panels) took_variant("matmul", form_name(s, t));
  const int64_t splits = s == Structure::rows ? 1 : split_count(device.device_class(), g, t);
  if (splits > 1) {
    launch_split(device, g, t, s, splits);
  } else {
    launch(device, g, t, s, 1);
  }
}

// Matrices [begin, begin + count) of the stack, rows [row, row + rows) and columns [column, ..) of C.
struct Part {
  int64_t begin, count, row, rows, column, columns;
};

Gemm part_of(const Gemm& g, const Part& p) {
  Gemm q = g;
  q.batch = p.count, q.m = p.rows, q.n = p.columns;
  q.a.offset += p.begin * g.a.batch_stride + p.row * (g.form == GemmForm::tn ? 1 : g.a.ld);
  q.b.offset += p.begin * g.b.batch_stride + p.column * (g.form == GemmForm::nt ? g.b.ld : 1);
  q.c.offset += p.begin * g.c.batch_stride + p.row * g.c.ld + p.column;
  if (g.bias.defined()) q.bias = g.bias.slice(0, p.column, p.columns);
  return q;
}

// In parts whose copies are of bounded size.
void gemm_panels(Device& device, const Gemm& g) {
  const int64_t most = most_panel_rows(device.caps(), g.k);
  const int64_t rows = std::min(most, g.m), columns = std::min(most, g.n);
  const int64_t count = std::clamp<int64_t>(most / std::max(rows, columns), 1, g.batch);
  for (int64_t begin = 0; begin < g.batch; begin += count) {
    const int64_t batch = std::min(count, g.batch - begin);
    for (int64_t row = 0; row < g.m; row += rows) {
      Gemm part = part_of(g, {begin, batch, row, std::min(rows, g.m - row), 0, g.n});
      const GemmMatrix a = pack_a(device, part);
      for (int64_t column = 0; column < g.n; column += columns) {
        part = part_of(
            g, {begin, batch, row, std::min(rows, g.m - row), column, std::min(columns, g.n - column)});
        part.b = pack_b(device, part);
        part.a = a;
        multiply_panels(device, part);
      }
    }
  }
}

// Rows that one binding of C (and of A, whose rows go with C's) can cover; all of them when nothing has to be
// split.
int64_t rows_per_binding(const Caps& caps, const Gemm& g) {
  const bool dense_c = g.batch == 1 && g.c.offset == 0 && g.c.ld == g.n && !g.pre.defined();
  const bool a_rows = g.form != GemmForm::tn;
  const bool dense_a = !a_rows || (g.a.offset == 0 && g.a.ld == g.k);
  if (!dense_c || !dense_a) return g.m;
  const int64_t floats = std::max(g.c.ld, a_rows ? g.a.ld : 1);
  const int64_t most = static_cast<int64_t>(caps.max_storage_buffer_range / 4) / floats;
  return most >= g.m ? g.m : most / 64 * 64;  // slices start at multiples of 256 bytes
}

Tensor rows_of(const GemmMatrix& x, int64_t begin, int64_t rows) {
  return x.tensor.with_strides({x.tensor.numel()}, {1}).slice(0, begin * x.ld, rows * x.ld);
}

}  // namespace

void multiply_panels(Device& device, const Gemm& g) {
  multiply(device, g, Structure::panels);
}

void gemm(Device& device, const Gemm& g) {
  if (g.m == 0 || g.n == 0 || g.batch == 0) return;
  const int64_t rows = rows_per_binding(device.caps(), g);
  if (rows > 0 && rows < g.m) {
    for (int64_t begin = 0; begin < g.m; begin += rows) {
      Gemm part = g;
      part.m = std::min(rows, g.m - begin);
      part.c.tensor = rows_of(g.c, begin, part.m);
      if (g.form == GemmForm::tn) {
        part.a.offset += begin;
      } else {
        part.a.tensor = rows_of(g.a, begin, part.m);
      }
      gemm(device, part);
    }
    return;
  }
  if (b_packed(g) && !decodes_inside(device, g)) return gemm_by_slabs(device, g);
  if (use_panels(device, g)) {
    took_variant("matmul", "panels");
    gemm_panels(device, g);
  } else {
    const bool simd = use_simd(device, "matmul") && fits_simd(g);
    multiply(device, g, simd ? Structure::simd : few_rows(device, g) ? Structure::rows : Structure::tiles);
  }
}

}  // namespace vkflux
