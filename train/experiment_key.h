// Names of experiments, in the form that experiment trackers accept.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace vkflux {

struct KeyRules {
  bool allow_empty = false;            // else an empty key becomes "exp" and 32 random hexadecimal digits
  size_t shortest = 32, longest = 50;  // characters: padded with X on the right, cut
};
/// Letters and digits of any script, nothing else. Error invalid_argument: shortest 0 or above longest.
std::string normalise_experiment_key(std::string_view text, const KeyRules& rules = {});

/// Commit, local time to the microsecond and process, 32 characters: two runs never share one by accident.
std::string new_experiment_key(const std::string& commit, std::chrono::system_clock::time_point now,
                               int64_t process);
/// "2026-02-11-104443-1a2b3c", for people.
std::string experiment_display_name(const std::string& commit, std::chrono::system_clock::time_point now);

}  // namespace vkflux
