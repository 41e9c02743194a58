// Which keys are landmarks and which queries train a student: deterministic, on the host.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

/// Which keys are landmarks.
struct LandmarkOptions {
  double fraction = 0.08;          // of the image tokens
  int64_t min = 64, max = 0;       // of the image landmarks; max 0: no limit; max wins over min
  int64_t text_tokens_guess = 77;  // when the caller doesn't know the conditioning tokens
  bool qk_norm = false;            // normalise q and landmark keys before the scores (never on in practice)

  bool operator==(const LandmarkOptions&) const = default;
};

/// `count` indices spread over [begin, end), both ends included, in f32 arithmetic from both ends.
std::vector<int32_t> even_indices(int64_t begin, int64_t end, int64_t count);

/// Tokens in front that are all landmarks: conditioning wins, then text, then the guess; within [0, keys].
int64_t conditioning_tokens(int64_t keys, std::optional<int64_t> conditioning, std::optional<int64_t> text,
                            const LandmarkOptions& options);
/// Landmarks that `image` image tokens ask for (may be more than there are).
int64_t landmark_budget(int64_t image, const LandmarkOptions& options);
/// Landmarks of `keys` keys without a mask.
int64_t landmark_count(int64_t keys, int64_t conditioning, const LandmarkOptions& options);

/// Ascending key indices. valid: one byte per key, 0 where no batch row keeps it; empty: all valid.
std::vector<int32_t> select_landmarks(int64_t keys, int64_t conditioning, const LandmarkOptions& options,
                                      std::span<const uint8_t> valid = {});

/// The query rows that train: all when there are at most `cap`.
std::vector<int32_t> select_training_queries(int64_t queries, int64_t cap);

/// A mask [rows, keys] with key 0 kept in every row that keeps none.
std::vector<uint8_t> safe_mask(std::vector<uint8_t> mask, int64_t rows);
/// The same of a u8 tensor [B, Nk] (waits for the device).
Tensor safe_mask(const Tensor& mask);

}  // namespace vkflux
