#include "model/attention/hkr/landmarks.h"

#include <algorithm>
#include <cmath>

namespace vkflux {
namespace {

std::vector<int32_t> thin(const std::vector<int32_t>& all, int64_t count) {
  std::vector<int32_t> out;
  for (const int32_t i : even_indices(0, static_cast<int64_t>(all.size()), count))
    out.push_back(all[static_cast<size_t>(i)]);
  return out;
}

}  // namespace

std::vector<int32_t> even_indices(int64_t begin, int64_t end, int64_t count) {
  const int64_t length = std::max<int64_t>(0, end - begin);
  std::vector<int32_t> out;
  if (length == 0 || count <= 0) return out;
  if (count >= length) {
    for (int64_t i = begin; i < end; ++i) out.push_back(static_cast<int32_t>(i));
    return out;
  }
  if (count == 1) return {static_cast<int32_t>(begin)};
  const float step = static_cast<float>(end - 1 - begin) / static_cast<float>(count - 1);
  for (int64_t i = 0; i < count; ++i) {
    const float x = i < count / 2 ? static_cast<float>(begin) + step * static_cast<float>(i)
                                  : static_cast<float>(end - 1) - step * static_cast<float>(count - 1 - i);
    out.push_back(static_cast<int32_t>(std::nearbyint(x)));  // halves to even
  }
  return out;
}

int64_t conditioning_tokens(int64_t keys, std::optional<int64_t> conditioning, std::optional<int64_t> text,
                            const LandmarkOptions& options) {
  int64_t t = std::max<int64_t>(0, options.text_tokens_guess);
  if (text) t = *text;
  if (conditioning) t = *conditioning;
  return std::clamp<int64_t>(t, 0, std::max<int64_t>(0, keys));
}

int64_t landmark_budget(int64_t image, const LandmarkOptions& options) {
  const double fraction = std::clamp(options.fraction, 0.0, 1.0);
  const auto raw = static_cast<int64_t>(std::nearbyint(static_cast<double>(image) * fraction));
  const int64_t budget = std::max({int64_t{1}, options.min, raw});
  return options.max > 0 ? std::min(options.max, budget) : budget;
}

int64_t landmark_count(int64_t keys, int64_t conditioning, const LandmarkOptions& options) {
  const int64_t image = keys - conditioning;
  return conditioning + std::min(image, landmark_budget(image, options));
}

std::vector<int32_t> select_landmarks(int64_t keys, int64_t conditioning, const LandmarkOptions& options,
                                      std::span<const uint8_t> valid) {
  std::vector<int32_t> index;
  if (keys <= 0) return index;
  const int64_t budget = landmark_count(keys, conditioning, options) - conditioning;
  for (int64_t i = 0; i < conditioning; ++i) index.push_back(static_cast<int32_t>(i));
  const std::vector<int32_t> image = even_indices(conditioning, keys, budget);
  index.insert(index.end(), image.begin(), image.end());
  index.erase(std::unique(index.begin(), index.end()), index.end());
  if (valid.empty()) return index;
  const auto kept = [&](int32_t i) { return valid[static_cast<size_t>(i)] != 0; };
  std::erase_if(index, [&](int32_t i) { return !kept(i); });
  if (!index.empty()) return index;
  for (int64_t i = 0; i < keys; ++i) {
    if (kept(static_cast<int32_t>(i))) index.push_back(static_cast<int32_t>(i));
  }
  if (index.empty()) return {0};
  const int64_t target = conditioning + budget;
  return static_cast<int64_t>(index.size()) > target ? thin(index, target) : index;
}

std::vector<int32_t> select_training_queries(int64_t queries, int64_t cap) {
  return even_indices(0, queries, std::max<int64_t>(1, cap));
}

std::vector<uint8_t> safe_mask(std::vector<uint8_t> mask, int64_t rows) {
  const size_t keys = rows > 0 ? mask.size() / static_cast<size_t>(rows) : 0;
  for (size_t r = 0; keys > 0 && r < static_cast<size_t>(rows); ++r) {
    const auto first = mask.begin() + static_cast<ptrdiff_t>(r * keys);
    if (std::all_of(first, first + static_cast<ptrdiff_t>(keys), [](uint8_t m) { return m == 0; }))
      *first = 1;
  }
  return mask;
}

Tensor safe_mask(const Tensor& mask) {
  const std::vector<uint8_t> safe = safe_mask(mask.to_host_bytes(), mask.dim(0));
  return Tensor::from(mask.device(), std::span<const uint8_t>(safe), mask.shape());
}

}  // namespace vkflux
