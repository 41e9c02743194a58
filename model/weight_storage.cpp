#include "model/weight_storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "autograd/packed.h"

namespace vkflux {
namespace {

bool kept_precise(std::string_view name) {
  static constexpr std::array<std::string_view, 8> kStarts{"img_in.",     "txt_in.",      "time_in.",
                                                           "vector_in.",  "guidance_in.", "final_layer.",
                                                           "text_model.", "shared."};
  return std::any_of(kStarts.begin(), kStarts.end(), [&](auto s) { return name.starts_with(s); }) ||
         name.find("relative_attention_bias") != name.npos;
}

bool modulation(std::string_view name) {
  return name.find("_mod.lin.") != name.npos || name.find("modulation.lin.") != name.npos;
}

bool fits(const Param& p, DType t) {
  return p.shape[1] % block_values(t) == 0;
}

}  // namespace

DType storage_of(const Param& p, DType wanted, io::FileDType stored) {
  if (p.shape.rank() != 2) return DType::f32;
  if (!is_packed(wanted)) return wanted;
  const DType precise = stored == io::FileDType::bf16 ? DType::bf16 : DType::f16;
  if (kept_precise(p.name)) return precise;
  if (!modulation(p.name) && fits(p, wanted)) return wanted;
  return fits(p, DType::q8_0) ? DType::q8_0 : precise;
}

std::string misfits(const std::vector<Param>& params, DType wanted) {
  if (!is_packed(wanted)) return "";
  size_t matrices = 0, q8 = 0, precise = 0;
  std::string example;
  for (const Param& p : params) {
    if (p.shape.rank() != 2 || kept_precise(p.name) || modulation(p.name)) continue;
    ++matrices;
    if (fits(p, wanted)) continue;
    if (example.empty()) example = fmt::format("{} {}", p.name, p.shape.str());
    ++(fits(p, DType::q8_0) ? q8 : precise);
  }
  if (q8 + precise == 0) return "";
  return fmt::format(
      "{} of {} matrices don't have rows of a multiple of {} values and are kept in {} instead of {}: {}{}",
      q8 + precise, matrices, block_values(wanted),
      precise == 0 ? "q8_0"
      : q8 == 0    ? "16 bits"
                   : "q8_0 or 16 bits",
      name(wanted), example, q8 + precise > 1 ? ", ..." : "");
}

}  // namespace vkflux
