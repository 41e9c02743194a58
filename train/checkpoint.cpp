#include "train/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "vk/error.h"

namespace vkflux {
namespace {

/// Calls fn(name in the file, tensor) for everything that `names` names.
template <class F>
void each_state(const Optimiser& optimiser, const StateNames& names, const F& fn) {
  const auto arena = [&](const std::optional<std::string>& prefix, const Arena* from) {
    for (size_t i = 0; prefix && from && i < from->size(); ++i) fn(*prefix + optimiser.name(i), (*from)[i]);
  };
  arena(names.param, &optimiser.param());
  arena(names.m, &optimiser.m());
  arena(names.v, &optimiser.v());
  arena(names.average, optimiser.average());
}

bool finite(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

std::vector<float> finite_values(const std::string& name, const Tensor& t) {
  std::vector<float> values = t.to_host();
  if (finite(values)) return values;
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("training diverged: {} isn't finite any more; an earlier checkpoint stays as it is: lower "
                  "the learning rate",
                  name));
}

}  // namespace

io::TensorData host_copy(const std::string& name, const Tensor& t) {
  return io::tensor_data(name, {t.shape().begin(), t.shape().end()}, finite_values(name, t));
}

void expect_finite(const Optimiser& optimiser) {
  for (size_t i = 0; i < optimiser.param().size(); ++i)
    finite_values(optimiser.name(i), optimiser.param()[i]);
}

void append_state(const Optimiser& optimiser, const StateNames& names, std::vector<io::TensorData>& tensors) {
  each_state(optimiser, names,
             [&](const std::string& name, const Tensor& t) { tensors.push_back(host_copy(name, t)); });
}

void PendingValues::take(const io::SafetensorsFile& file, const std::string& name, const Tensor& to) {
  std::vector<float> values = file.read_f32(name);
  if (static_cast<int64_t>(values.size()) != to.numel()) {
    throw Error(ErrorCode::format,
                fmt::format("{} has {} values, {} are needed", name, values.size(), to.numel()));
  }
  if (!finite(values))
    throw Error(ErrorCode::format, fmt::format("{} holds values that aren't finite", name));
  values_.emplace_back(to, std::move(values));
}

void PendingValues::take(const io::SafetensorsFile& file, const Optimiser& optimiser,
                         const StateNames& names) {
  each_state(optimiser, names, [&](const std::string& name, const Tensor& t) { take(file, name, t); });
}

void PendingValues::apply() const {
  for (const auto& [tensor, values] : values_) tensor.copy_from_host(std::span<const float>(values));
}

std::string metadata_of(const io::SafetensorsFile& file, const std::string& key) {
  const auto it = file.metadata().find(key);
  return it == file.metadata().end() ? std::string() : it->second;
}

int64_t counter_of(const io::SafetensorsFile& file, const std::string& key) {
  const std::string text = metadata_of(file, key);
  int64_t n = -1;
  const char* end = text.data() + text.size();
  const auto [stopped, fault] = std::from_chars(text.data(), end, n);
  if (fault == std::errc() && stopped == end && n >= 0) return n;
  throw Error(
      ErrorCode::format,
      fmt::format("no training checkpoint: its \"{}\" is '{}', a count is expected", key, io::shown(text)));
}

void expect_same_setting(const std::string& what, const std::string& file, const std::string& run) {
  if (file == run) return;
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("the checkpoint was made with other settings: {} is {} in the file and {} in this run; use "
                  "the file's settings, or another --out folder",
                  what, file, run));
}

}  // namespace vkflux
