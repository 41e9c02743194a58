#include "model/weight_storage.h"

#include <fmt/format.h>

#include <algorithm>

#include "autograd/packed.h"

namespace vkflux {
namespace {

bool any_in(const std::vector<std::string>& parts, const std::string& name) {
  return std::any_of(parts.begin(), parts.end(), [&](const auto& p) { return name.find(p) != name.npos; });
}

bool fits(const Param& p, DType t) {
  return p.shape[1] % block_values(t) == 0;
}

}  // namespace

DType storage_of(const StorageRules& rules, const Param& p, DType wanted, io::FileDType stored) {
  if (p.shape.rank() != 2) return DType::f32;
  if (!is_packed(wanted)) return wanted;
  const DType precise = stored == io::FileDType::bf16 ? DType::bf16 : DType::f16;
  if (any_in(rules.precise, p.name)) return precise;
  if (!any_in(rules.q8_0, p.name) && fits(p, wanted)) return wanted;
  return fits(p, DType::q8_0) ? DType::q8_0 : precise;
}

std::string misfits(const StorageRules& rules, const std::vector<Param>& params, DType wanted) {
  if (!is_packed(wanted)) return "";
  size_t matrices = 0, q8 = 0, precise = 0;
  std::string example;
  for (const Param& p : params) {
    if (p.shape.rank() != 2 || any_in(rules.precise, p.name) || any_in(rules.q8_0, p.name)) continue;
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
