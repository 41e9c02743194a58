#include "autograd/ops/matmul_panels.h"

#include <algorithm>

#include "autograd/ops/binding.h"

namespace vkflux {
namespace {

// each: 1 for A, 4 for B. by_k: K is the contiguous dimension.
GemmMatrix pack(Device& device, const GemmMatrix& x, int64_t batch, int64_t rows, int64_t k, bool by_k,
                uint32_t each, uint32_t format) {
  const int64_t sg = device.caps().subgroup_size, tile = each == 1 ? kPanelRows : kPanelColumns;
  const int64_t blocks = panel_blocks(device.caps(), rows, tile), k4 = panel_k(k) / 4;
  const int64_t per_texel = format == 0 ? 4 : 8;
  const Tensor y = Tensor::empty(device, {batch, blocks, k4 * sg * 4}, DType::f32, MemoryClass::scratch);
  const args::MatmulPanelArgs a{u32(rows),           u32(k),  u32(x.ld),   u32(x.offset),
                                u32(x.batch_stride), u32(k4), u32(blocks), u32(blocks * k4 * sg)};
  constexpr uint32_t kLocal = 256;
  const uint64_t steps = static_cast<uint64_t>(by_k ? (4 * k4 + per_texel - 1) / per_texel : k4);
  const int64_t row_groups = by_k ? blocks : (blocks + per_texel - 1) / per_texel;
  const double source =
      static_cast<double>(batch * rows * k * static_cast<int64_t>(size_of(x.tensor.dtype())));
  run(device,
      {spec::MatmulPanel{.LOCAL = kLocal, .SG = u32(sg), .EACH = each, .FORMAT = format},
       by_k ? "rows" : "columns"},
      {x.tensor, y}, a,
      {static_cast<uint32_t>(ceil_div(steps, kLocal / static_cast<uint64_t>(sg))), u32(row_groups),
       u32(batch)},
      {0, source + static_cast<double>(y.bytes())});
  return {y, k4 * sg * 4, blocks * k4 * sg * 4, 0};
}

}  // namespace

int64_t most_panel_rows(const Caps& caps, int64_t k) {
  constexpr int64_t kScratch = 32 << 20;
  return std::min(kScratch, max_binding_bytes(caps)) / 4 / panel_k(k) / 64 * 64;
}

bool use_panels(Device& device, const Gemm& g) {
  const int64_t sg = device.caps().subgroup_size;
  if (!device.caps().simd() || sg > kPanelRows || b_packed(g) || !aligned(g.a, 4, g.batch) ||
      !aligned(g.b, b_format(g) ? 8 : 4, g.batch) || most_panel_rows(device.caps(), g.k) == 0) {
    return false;
  }
  const std::string forced = forced_variant("matmul");
  if (!forced.empty()) return forced == "panels";
  if (device.device_class() != DeviceClass::cpu) return false;
  // Copying an element costs about as much as the panel kernel saves on this many multiplications with it
  // (measured): 16-bit rows are cheaper to read, so it gains more.
  const int64_t pays = g.form == GemmForm::nt && b_format(g) ? 48 : 80;
  return g.m * g.n >= pays * (g.m + g.n) && g.k >= 32;
}

Tile panel_tile(const Caps& caps, const Gemm& g) {
  const uint32_t sg = caps.subgroup_size;
  const spec::MatmulSimd constants{.SG = sg,
                                   .MA = u32(kPanelRows) / sg,
                                   .NV = u32(kPanelColumns) / 4 / sg,
                                   .B_FORMAT = 0,
                                   .FLAGS = flags(g),
                                   .ACT = g.act,
                                   .TAIL = 0,
                                   .KU = 1};
  return {{constants, vector_c(g) ? "panel" : "panel_scalar"}, kPanelRows, kPanelColumns, 16};
}

GemmMatrix pack_a(Device& device, const Gemm& g) {
  return pack(device, g.a, g.batch, g.m, g.k, g.form != GemmForm::tn, 1, 0);
}

GemmMatrix pack_b(Device& device, const Gemm& g) {
  return pack(device, g.b, g.batch, g.n, g.k, g.form == GemmForm::nt, 4, b_format(g));
}

}  // namespace vkflux
