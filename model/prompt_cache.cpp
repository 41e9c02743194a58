#include "model/prompt_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>

#include "model/io/file.h"
#include "model/io/safetensors.h"
#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr const char *kKey = "key", *kEnding = ".safetensors";

/// Two sums of FNV-1a that begin apart, 128 bits together.
class Sum {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) {
      a_ = (a_ ^ static_cast<unsigned char>(c)) * kPrime;
      b_ = (b_ ^ static_cast<unsigned char>(c) ^ (b_ >> 32)) * kPrime;
    }
    add_number(bytes.size());
  }
  void add_number(uint64_t n) {
    for (int i = 0; i < 8; ++i, n >>= 8) {
      a_ = (a_ ^ (n & 255)) * kPrime;
      b_ = (b_ ^ (n & 255) ^ (b_ >> 32)) * kPrime;
    }
  }
  std::string text() const { return fmt::format("{:016x}{:016x}", a_, b_); }

 private:
  static constexpr uint64_t kPrime = 0x100000001b3ull;
  uint64_t a_ = 0xcbf29ce484222325ull, b_ = 0x9e3779b97f4a7c15ull;
};

std::string sum_of(std::string_view text) {
  Sum sum;
  sum.add(text);
  return sum.text();
}

// Nothing where the file isn't an entry of this key.
std::optional<Condition> read_entry(Device& device, const std::string& path, const std::string& key,
                                    const PromptCache::Shapes& shapes) {
  const io::SafetensorsFile file(path);
  const auto held = file.metadata().find(kKey);
  if (held == file.metadata().end() || held->second != sum_of(key)) return {};
  Condition out;
  if (file.tensors().size() != shapes.size()) return {};
  for (const auto& [name, info] : file.tensors()) {
    const auto shape = shapes.find(name);
    if (shape == shapes.end() || info.dtype != io::FileDType::f32 ||
        !std::equal(info.shape.begin(), info.shape.end(), shape->second.begin(), shape->second.end()))
      return {};
    const std::vector<float> values = file.read_f32(name);
    if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) return {};
    out.set(name, Tensor::from(device, std::span<const float>(values), shape->second));
  }
  return out;
}

}  // namespace

std::string fingerprint(const io::TensorSource& file) {
  constexpr uint64_t kSamples = 16, kBytes = 64;
  Sum sum;
  std::error_code ec;
  sum.add_number(fs::file_size(file.path(), ec));
  sum.add_number(static_cast<uint64_t>(fs::last_write_time(file.path(), ec).time_since_epoch().count()));
  for (const auto& [name, info] : file.tensors()) {
    sum.add(name);
    sum.add(io::name(info.dtype));
    for (const int64_t d : info.shape) sum.add_number(static_cast<uint64_t>(d));
    std::string sample(std::min(kBytes, info.bytes()), '\0');
    for (uint64_t i = 0; i < kSamples && !sample.empty(); ++i) {
      file.read(info, (info.bytes() - sample.size()) / kSamples * i,
                std::as_writable_bytes(std::span(sample)));
      sum.add(sample);
    }
  }
  return sum.text();
}

std::string device_key(Device& device) {
  const Caps& c = device.caps();
  return fmt::format("{} {} {} {} {}", c.device_name, c.driver_name, c.driver_info,
                     name(device.device_class()), environment("VKFLUX_VARIANT"));
}

PromptCache::PromptCache(std::string folder, uint64_t most) : folder_(std::move(folder)), most_(most) {
  if (folder_.empty() && !cache_folder().empty()) folder_ = cache_folder() + "/prompts";
}

std::string PromptCache::path_of(const std::string& key) const {
  return folder_ + "/" + sum_of(key) + kEnding;
}

Condition PromptCache::get(Device& device, const std::string& key, const Shapes& shapes,
                           const std::function<Condition()>& make) const {
  if (folder_.empty()) return make();
  const std::string path = path_of(key);
  std::error_code ec;
  if (fs::is_regular_file(path, ec) && fs::file_size(path, ec) <= most_) {
    try {
      if (auto found = read_entry(device, path, key, shapes)) {
        fs::last_write_time(path, fs::file_time_type::clock::now(), ec);  // used last: goes last
        return *found;
      }
    } catch (const Error& e) {
      if (e.code() != ErrorCode::io && e.code() != ErrorCode::format && e.code() != ErrorCode::unsupported)
        throw;
    }
  }
  const Condition made = make();
  keep(key, made);
  return made;
}

void PromptCache::keep(const std::string& key, const Condition& condition) const {
  std::vector<io::TensorData> out;
  condition.visit([&](const std::string& name, const Tensor& x) {
    const std::vector<float> values = x.to_host();
    // What isn't finite is an error of this run; it mustn't become one of all later ones.
    if (std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
      out.push_back(io::tensor_data(name, {x.shape().begin(), x.shape().end()}, values));
  });
  if (out.size() != condition.parts().size()) return;
  try {
    io::write_safetensors(path_of(key), out, {{kKey, sum_of(key)}});
    shrink();
  } catch (const Error&) {  // a run without the cache costs time alone
  }
}

void PromptCache::shrink() const {
  struct Entry {
    fs::file_time_type time;
    uint64_t bytes;
    fs::path path;
  };
  std::vector<Entry> all;
  std::error_code ec;
  uint64_t sum = 0;
  for (const auto& e : fs::directory_iterator(folder_, ec)) {
    if (e.path().extension() != kEnding || !e.is_regular_file(ec)) continue;
    all.push_back({e.last_write_time(ec), e.file_size(ec), e.path()});
    sum += all.back().bytes;
  }
  std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.time < b.time; });
  for (const Entry& e : all) {
    if (sum <= most_) return;
    if (fs::remove(e.path, ec)) sum -= e.bytes;
  }
}

}  // namespace vkflux
