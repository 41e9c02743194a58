#include "bench/compiled.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>

namespace vkflux::bench {
namespace {

std::optional<double> value(const KernelStatistics& s, std::string_view name) {
  const auto it =
      std::find_if(s.values.begin(), s.values.end(), [&](const auto& v) { return v.first == name; });
  return it == s.values.end() ? std::nullopt : std::optional(it->second);
}

// The first of the names that the driver knows.
std::optional<double> first(const KernelStatistics& s, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    if (const auto v = value(s, name)) return v;
  }
  return std::nullopt;
}

std::optional<double> sum(const KernelStatistics& s, std::initializer_list<std::string_view> names) {
  std::optional<double> total;
  for (const std::string_view name : names) {
    if (const auto v = value(s, name)) total = total.value_or(0) + *v;
  }
  return total;
}

}  // namespace

std::vector<Compiled> compiled(const std::vector<const Kernel*>& kernels) {
  std::vector<Compiled> rows;
  for (const Kernel* k : kernels) {
    for (const KernelStatistics& s : k->statistics) {
      Compiled row;
      row.kernel = k->name;
      row.spec = k->spec;
      row.subgroup_size = s.subgroup_size;
      row.registers = first(s, {"VGPRs", "Number of GPRs", "Max live registers", "Registers used", "GPRs"});
      row.spills = sum(s, {"Spilled SGPRs", "Spilled VGPRs", "Spills to memory", "Fills from memory",
                           "Spill count", "Fill count", "Spills", "STP Count"});
      row.scratch_bytes = first(s, {"Scratch size", "SLM size", "Scratch Memory Size", "Scratch"});
      row.shared_bytes = first(s, {"LDS size", "Workgroup Memory Size", "Shared memory"});
      row.occupancy = first(s, {"Subgroups per SIMD", "Max warps/SM", "Max Waves Per Core", "Threads"});
      row.instructions = first(s, {"Instructions", "Instruction count", "Instruction Count"});
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

}  // namespace vkflux::bench
