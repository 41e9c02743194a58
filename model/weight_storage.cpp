#include "model/weight_storage.h"

#include <fmt/format.h>

#include <algorithm>

#include "autograd/packed.h"
#include "model/io/values.h"

namespace vkflux {
namespace {

bool any_in(const std::vector<std::string>& parts, const std::string& name) {
  return std::any_of(parts.begin(), parts.end(), [&](const auto& p) { return name.find(p) != name.npos; });
}

bool fits(const Param& p, DType t) {
  return p.shape[1] % block_values(t) == 0;
}

}  // namespace

DType storage_of(const StorageRules& rules, const Param& p, WantedType as, io::FileDType stored) {
  if (p.shape.rank() != 2) return DType::f32;
  if (!as) {
    const DType t = io::device_type(stored);
    return is_packed(t) && (any_in(rules.tables, p.name) || !fits(p, t)) ? DType::f16 : t;
  }
  const DType wanted = *as;
  if (!is_packed(wanted)) return wanted;
  const DType precise = stored == io::FileDType::bf16 ? DType::bf16 : DType::f16;
  if (any_in(rules.precise, p.name)) return precise;
  if (!any_in(rules.q8_0, p.name) && fits(p, wanted)) return wanted;
  return fits(p, DType::q8_0) ? DType::q8_0 : precise;
}

std::string misfits(const StorageRules& rules, const std::vector<Param>& params, WantedType as) {
  if (!as || !is_packed(*as)) return "";
  const DType wanted = *as;
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
