#include "train/experiment_key.h"

#include <fmt/format.h>

#include <ctime>
#include <random>

#include "model/text/characters.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kRandomDigits = 32;

std::string random_key() {
  std::random_device entropy;
  std::string key = "exp";
  for (size_t i = 0; i < kRandomDigits / 8; ++i)
    key += fmt::format("{:08x}", static_cast<uint32_t>(entropy()));
  return key;
}

std::tm local_time(std::chrono::system_clock::time_point now) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  std::tm out{};
  localtime_r(&seconds, &out);
  return out;
}

int64_t microseconds(std::chrono::system_clock::time_point now) {
  using std::chrono::microseconds;
  constexpr int64_t kPerSecond = 1000000;
  const int64_t count = std::chrono::duration_cast<microseconds>(now.time_since_epoch()).count() % kPerSecond;
  return count < 0 ? count + kPerSecond : count;
}

}  // namespace

std::string normalise_experiment_key(std::string_view text, const KeyRules& rules) {
  if (rules.shortest == 0 || rules.longest < rules.shortest) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("experiment keys of {} to {} characters: from 1 to at least as many are needed",
                            rules.shortest, rules.longest));
  }
  std::u32string key;
  for (char32_t c : to_characters(text)) {
    if (is_alphanumeric(c)) key += c;
  }
  if (key.empty()) {
    if (rules.allow_empty) return {};
    key = to_characters(random_key());
  }
  if (key.size() < rules.shortest) key.append(rules.shortest - key.size(), U'X');
  return to_utf8(key.substr(0, rules.longest));
}

std::string new_experiment_key(const std::string& commit, std::chrono::system_clock::time_point now,
                               int64_t process) {
  constexpr size_t kCommitDigits = 7;
  constexpr int64_t kProcesses = 100000;
  const std::tm t = local_time(now);
  return normalise_experiment_key(fmt::format(
      "{}{:04}{:02}{:02}{:02}{:02}{:02}{:06}{:05}", commit.substr(0, kCommitDigits), t.tm_year + 1900,
      t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, microseconds(now), process % kProcesses));
}

std::string experiment_display_name(const std::string& commit, std::chrono::system_clock::time_point now) {
  constexpr size_t kCommitDigits = 6;
  const std::tm t = local_time(now);
  return fmt::format("{:04}-{:02}-{:02}-{:02}{:02}{:02}-{}", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                     t.tm_hour, t.tm_min, t.tm_sec, commit.substr(0, kCommitDigits));
}

}  // namespace vkflux
