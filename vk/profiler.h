// Time per kernel and per part of the model, from timestamps behind every command. Off, it costs one branch.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

struct KernelTime {
  uint64_t calls = 0;
  double ms = 0, flops = 0, bytes = 0;
};

/// One command of the device. It begins where the one before it ended, so the times of a submit add up to the
/// submit's; waiting for that one is part of it.
struct ProfileSample {
  std::string_view kernel;
  uint32_t scope = 0;
  double begin_ms = 0, end_ms = 0;  // by the device's clock
  double flops = 0, bytes = 0;
};

class Profiler {
 public:
  bool enabled() const { return enabled_; }
  /// Takes effect for what is recorded afterwards; needs timestamps on the device (else stays off).
  void enable(bool on) { enabled_ = on; }
  /// Also keep every sample (at most kMaxSamples), for a trace.
  void keep_samples(bool on) { keep_ = on; }
  static constexpr size_t kMaxSamples = 1'000'000;

  void add(const ProfileSample& sample);
  const std::map<std::string, KernelTime>& table() const { return table_; }
  const std::vector<ProfileSample>& samples() const { return samples_; }
  uint64_t dropped() const { return dropped_; }
  void clear();
  /// One line per kernel, slowest first: calls, ms, share, GFLOP/s, GB/s; then the same per part of the
  /// model.
  std::string report() const;

  /// The part of the model that commands belong to now, as a number; its name is "step 2/double_blocks.0".
  uint32_t scope() const { return scope_; }
  const std::string& scope_name(uint32_t scope) const { return scopes_[scope]; }

 private:
  friend class ProfileScope;
  uint32_t intern(std::string name);

  bool enabled_ = false, keep_ = false;
  std::map<std::string, KernelTime> table_;
  std::vector<KernelTime> by_scope_;
  std::vector<ProfileSample> samples_;
  uint64_t dropped_ = 0;
  uint32_t scope_ = 0;
  std::vector<std::string> scopes_{""};
  std::map<std::string, uint32_t, std::less<>> scope_numbers_{{"", 0}};
};

/// While it lives, commands belong to part `name` of the part that encloses it. index: a running number that
/// tables sum over ("step 3"); -1: none.
class ProfileScope {
 public:
  ProfileScope(Profiler& profiler, std::string_view name, int64_t index = -1);
  ~ProfileScope() { profiler_.scope_ = previous_; }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;

 private:
  Profiler& profiler_;
  uint32_t previous_;
};

}  // namespace vkflux
