// Tiles of the kernels for GPUs. Registers, spills and occupancy of each choice, by compiler:
// docs/benchmarks, "compile only".
#include <algorithm>
#include <array>
#include <span>
#include <string>

#include "autograd/ops/matmul_tiles.h"
#include "autograd/packed.h"

namespace vkflux {
namespace {

// Tiles of shaders/matmul.comp: tx x ty invocations with tm x tn elements of C each.
struct SharedTile {
  int64_t max_m;      // for products of at most so many rows,
  int64_t min_tiles;  // when C has at least so many tiles
  uint32_t tx, ty, tm, tn, bk;

  int64_t rows() const { return int64_t{ty} * tm; }
  int64_t columns() const { return int64_t{tx} * tn; }
  uint32_t shared_bytes() const { return static_cast<uint32_t>(rows() + columns()) * 4 * (bk + 4); }
};

constexpr SharedTile kFewRows{16, 0, 16, 4, 4, 4, 16}, kSmall{INT64_MAX, 0, 16, 16, 4, 4, 16},
    kTall{INT64_MAX, 64, 16, 8, 8, 4, 16}, kTallLean{INT64_MAX, 64, 16, 8, 8, 4, 8},
    kLarge{INT64_MAX, 128, 16, 16, 8, 8, 8};

// Best first; the last row fits every device. More elements per invocation need fewer reads of shared memory
// per product, but 8 x 8 only fits where an invocation can have more than 128 registers. Steps of 8 keep
// fewer values on their way: with them a second workgroup of 8 x 8 fits (128 registers in place of 136 to
// 156), and 8 x 4 fits 128 registers of 8 lanes.
std::span<const SharedTile> shared_tiles(DeviceClass cls) {
  static constexpr std::array kMany{kFewRows, kLarge, kTall, kSmall};
  static constexpr std::array kSome{kFewRows, kTallLean, kSmall};
  static constexpr std::array kFew{kFewRows, kSmall};
  switch (cls) {
    case DeviceClass::nvidia:
    case DeviceClass::amd:
      return kMany;
    case DeviceClass::intel:
      return kSome;
    case DeviceClass::other:
    case DeviceClass::cpu:
      return kFew;
  }
  return kFew;
}

const char* shared_variant(const Gemm& g) {
  if (!aligned(g.a, 4, g.batch) || !vector_c(g)) return "scalar";
  if (b_packed(g)) return "vec4_packed";
  if (!aligned(g.b, 4, g.batch)) return "scalar";
  return b_format(g) ? "vec4_b16" : "vec4";
}

// Rows of A up to which a product is bound by reading B, and shaders/matvec.comp takes it.
constexpr int64_t kMostVectors = 8, kMostColumns = 1 << 18;  // the latter by workgroups in y

// Tiles of shaders/matmul_coop.comp: down x across subgroups, each with a part of rows / down x columns /
// across.
struct CoopTile {
  int64_t max_m, min_tiles;  // as above
  uint32_t rows, columns, down, across, bk;
  std::optional<DeviceClass> only = {};  // none: for every class
};

// Best first; the last row takes every product. A part of 64 x 32 needs 64 registers for its sums at 32
// invocations, and reads (64 + 32) / (64 x 32) factors of shared memory per product. On NVIDIA
// two workgroups fit a multiprocessor only with at most 128 registers, and shorter steps make them fit.
constexpr std::array kWideCoop{
    CoopTile{32, 0, 32, 64, 1, 4, 32}, CoopTile{INT64_MAX, 96, 128, 128, 2, 4, 16, DeviceClass::nvidia},
    CoopTile{INT64_MAX, 96, 128, 128, 2, 4, 32}, CoopTile{INT64_MAX, 0, 64, 64, 2, 2, 32}};
// Subgroups of 8 or 16, whose compilers have 128 registers of that width: parts of 16 x 16.
constexpr std::array kNarrowCoop{CoopTile{16, 0, 16, 64, 2, 4, 16}, CoopTile{INT64_MAX, 0, 64, 64, 4, 4, 16}};

// Subgroup sizes to compile for; the last row is for every class that has none of its own.
struct CoopSubgroup {
  std::optional<DeviceClass> only;
  uint32_t size;
};
constexpr std::array kCoopSubgroups{CoopSubgroup{DeviceClass::intel, 16}, CoopSubgroup{std::nullopt, 32}};

uint32_t shared_bytes(const CoopTile& t, const MatrixShape& s) {
  const uint32_t pad = 16, by_k = 2 * t.bk + pad;  // bytes of a row; the other order needs no more
  return (t.rows + t.columns) * by_k + t.down * t.across * s.m * s.n * 4;
}

// The largest shape that the tile's parts can be made of; none: null.
const MatrixShape* fitting(const std::vector<MatrixShape>& shapes, const CoopTile& t) {
  const MatrixShape* best = nullptr;
  for (const MatrixShape& s : shapes) {
    const bool fits = t.rows / t.down % s.m == 0 && t.columns / t.across % s.n == 0 && t.bk % s.k == 0 &&
                      s.m % 8 == 0 && s.n % 8 == 0 && s.k % 8 == 0;
    if (fits && (!best || s.m * s.n * s.k > best->m * best->n * best->k)) best = &s;
  }
  return best;
}

}  // namespace

uint32_t coop_subgroup(const Caps& caps) {
  if (!caps.min_subgroup_size) return caps.subgroup_size;
  const auto row = std::find_if(kCoopSubgroups.begin(), kCoopSubgroups.end() - 1,
                                [&](const CoopSubgroup& r) { return r.only == caps.device_class; });
  return std::clamp(row->size, caps.min_subgroup_size, caps.max_subgroup_size);
}

Tile shared_tile(Device& device, const Gemm& g) {
  const std::span<const SharedTile> tiles = shared_tiles(device.device_class());
  const Caps& caps = device.caps();
  const auto row = std::find_if(tiles.begin(), tiles.end() - 1, [&](const SharedTile& t) {
    return g.m <= t.max_m && tile_count(g, t.rows(), t.columns()) >= t.min_tiles &&
           t.tx * t.ty <= caps.max_invocations && t.shared_bytes() <= caps.max_shared_memory;
  });
  const SharedTile& t = *row;
  const spec::Matmul constants{.LOCAL = t.tx * t.ty,
                               .TX = t.tx,
                               .TM = t.tm,
                               .TN = t.tn,
                               .BK = t.bk,
                               .FORM = g.form,
                               .B_FORMAT = b_format(g),
                               .FLAGS = flags(g),
                               .ACT = g.act};
  return {{constants, shared_variant(g)}, t.rows(), t.columns(), t.bk};
}

bool few_rows(Device& device, const Gemm& g) {
  const std::string forced = forced_variant("matmul");
  const bool wanted = forced.empty() ? device.device_class() != DeviceClass::cpu : forced == "matvec";
  if (!wanted || g.form != GemmForm::nt || g.m > kMostVectors || g.n > kMostColumns) return false;
  if (!aligned(g.a, 4, g.batch)) return false;
  if (b_packed(g)) return g.k % std::max<int64_t>(16, block_values(g.b.tensor.dtype())) == 0;
  const int64_t texel = b_format(g) ? 8 : 4;
  return g.k % texel == 0 && aligned(g.b, texel, g.batch);
}

Tile row_tile(const Gemm& g) {
  // Invocations that share a row of B, and rows of each: enough loads on their way at once, also where N is
  // small.
  struct Row {
    int64_t min_n;
    uint32_t tx, nr;
  };
  static constexpr std::array kRows{Row{4096, 32, 2}, Row{1024, 32, 1}, Row{0, 128, 1}};
  const Row& r = *std::find_if(kRows.begin(), kRows.end() - 1, [&](const Row& x) { return g.n >= x.min_n; });
  constexpr uint32_t kLocal = 128;
  const spec::Matvec constants{.LOCAL = kLocal,
                               .TX = r.tx,
                               .NR = r.nr,
                               .M = u32(g.m),
                               .B_FORMAT = b_format(g),
                               .FLAGS = flags(g),
                               .ACT = g.act};
  return {constants, g.m, int64_t{kLocal / r.tx * r.nr}, 1};
}

std::optional<Tile> coop_tile(Device& device, const Gemm& g) {
  const std::string forced = forced_variant("matmul");
  const DeviceClass cls = device.device_class();
  if (forced.empty() ? cls == DeviceClass::cpu : forced != "coop") return std::nullopt;
  const uint32_t format = b_format(g);
  const bool packed = b_packed(g);
  const bool vectors = aligned(g.a, 4, g.batch) && (packed || aligned(g.b, 4, g.batch)) && vector_c(g);
  if (format == 0 || !vectors) return std::nullopt;
  const Caps& caps = device.caps();
  // bf16 weights keep their type where the device has it; f16 holds all but their smallest values exactly.
  const bool bf16 = format == 2 && device.kernels().available("matmul_coop", "bf16");
  const char* variant = bf16 ? "bf16" : packed ? "f16_packed" : "f16";
  if (!device.kernels().available("matmul_coop", variant)) return std::nullopt;
  const uint32_t subgroup = coop_subgroup(caps);
  const std::span<const CoopTile> tiles =
      subgroup < 32 ? std::span<const CoopTile>(kNarrowCoop) : std::span<const CoopTile>(kWideCoop);
  for (const CoopTile& tile : tiles) {
    if (tile.only && tile.only != cls) continue;
    const MatrixShape* s = fitting(bf16 ? caps.bf16_shapes : caps.f16_shapes, tile);
    const uint32_t local = subgroup * tile.down * tile.across;
    if (!s || g.m > tile.max_m || tile_count(g, tile.rows, tile.columns) < tile.min_tiles ||
        local > caps.max_invocations || shared_bytes(tile, *s) > caps.max_shared_memory) {
      continue;
    }
    const spec::MatmulCoop constants{.LOCAL = local,
                                     .SG = subgroup,
                                     .TM = s->m,
                                     .TN = s->n,
                                     .TK = s->k,
                                     .CM = tile.rows / tile.down / s->m,
                                     .CN = tile.columns / tile.across / s->n,
                                     .ACROSS = tile.across,
                                     .BK = tile.bk,
                                     .FORM = g.form,
                                     .B_FORMAT = format,
                                     .FLAGS = flags(g),
                                     .ACT = g.act};
    return Tile{{constants, variant, subgroup}, tile.rows, tile.columns, tile.bk, !bf16};
  }
  return std::nullopt;
}

}  // namespace vkflux
