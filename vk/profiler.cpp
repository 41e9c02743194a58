#include "vk/profiler.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace vkflux {
namespace {

void count(KernelTime& t, const ProfileSample& s) {
  ++t.calls;
  t.ms += s.end_ms - s.begin_ms;
  t.flops += s.flops;
  t.bytes += s.bytes;
}

void merge(KernelTime& into, const KernelTime& t) {
  into.calls += t.calls;
  into.ms += t.ms;
  into.flops += t.flops;
  into.bytes += t.bytes;
}

std::string lines(const std::string& title, const std::map<std::string, KernelTime>& table) {
  std::vector<std::pair<std::string, KernelTime>> rows(table.begin(), table.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.ms > b.second.ms; });
  double total = 0;
  for (const auto& [name, t] : rows) total += t.ms;
  std::string out =
      fmt::format("{:<36}{:>8}{:>11}{:>8}{:>10}{:>9}\n", title, "calls", "ms", "share", "GFLOP/s", "GB/s");
  for (const auto& [name, t] : rows) {
    const double s = std::max(t.ms, 1e-9) * 1e6;
    out += fmt::format("{:<36}{:>8}{:>11.2f}{:>7.1f}%{:>10.2f}{:>9.2f}\n", name, t.calls, t.ms,
                       100 * t.ms / std::max(total, 1e-9), t.flops / s, t.bytes / s);
  }
  return out;
}

// "step 3/double_blocks.0" -> "step/double_blocks.0"
std::string without_indices(const std::string& name) {
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    if (name[i] == ' ') {
      while (i + 1 < name.size() && name[i + 1] != '/') ++i;
    } else {
      out += name[i];
    }
  }
  return out;
}

}  // namespace

void Profiler::add(const ProfileSample& sample) {
  count(table_[std::string(sample.kernel)], sample);
  if (by_scope_.size() <= sample.scope) by_scope_.resize(sample.scope + 1);
  count(by_scope_[sample.scope], sample);
  if (!keep_) return;
  if (samples_.size() < kMaxSamples) {
    samples_.push_back(sample);
  } else {
    ++dropped_;
  }
}

void Profiler::clear() {
  table_.clear();
  by_scope_.clear();
  samples_.clear();
  dropped_ = 0;
}

std::string Profiler::report() const {
  std::map<std::string, KernelTime> parts;
  for (size_t i = 0; i < by_scope_.size(); ++i) {
    if (by_scope_[i].calls) merge(parts[without_indices(scopes_[i])], by_scope_[i]);
  }
  if (const auto outside = parts.extract(""); !outside.empty()) parts["(elsewhere)"] = outside.mapped();
  return lines("kernel", table_) + "\n" + lines("part", parts);
}

uint32_t Profiler::intern(std::string name) {
  const auto [it, made] = scope_numbers_.try_emplace(std::move(name), static_cast<uint32_t>(scopes_.size()));
  if (made) scopes_.push_back(it->first);
  return it->second;
}

ProfileScope::ProfileScope(Profiler& profiler, std::string_view name, int64_t index)
    : profiler_(profiler), previous_(profiler.scope_) {
  if (!profiler.enabled()) return;
  const std::string& outer = profiler.scopes_[previous_];
  std::string full = outer.empty() ? std::string(name) : fmt::format("{}/{}", outer, name);
  if (index >= 0) full += fmt::format(" {}", index);
  profiler_.scope_ = profiler_.intern(std::move(full));
}

}  // namespace vkflux
