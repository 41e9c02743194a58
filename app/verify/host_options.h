// The reader of the options maps in golden tables: what such a host's map says about one attention call.
// Names are looked up in the map, then in its sub-map "flux2_ttr"; the first usable one wins. Our own
// pipelines have these values in AttentionCall.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/io/json.h"

namespace vkflux {

class CallOptions {
 public:
  /// An object, or null when the host passes no map.
  explicit CallOptions(const io::Json& options);

  /// "single:3"; what isn't an integer counts as block 0, no type as single.
  std::string layer_key() const;
  bool is_single() const;
  std::optional<int64_t> block_index() const;
  /// Whether students may serve the call: a single block from start to end, both inclusive, negative: no
  /// bound. A block without an index is in every range.
  bool selected(int64_t start, int64_t end) const;

  /// Finite numbers, booleans as 0 and 1, first elements of lists.
  std::optional<double> sigma() const;
  double cfg_scale(double fallback) const;
  /// Integers from 0, capped at the number of keys.
  std::optional<int64_t> conditioning_tokens(int64_t keys) const;
  int64_t text_tokens(int64_t keys, int64_t guess) const;
  /// Width and height; else the side of the image's square of tokens, else (tokens, 1). text: tokens in
  /// front of them.
  std::pair<int64_t, int64_t> resolution(int64_t keys, int64_t text) const;

  /// Which solver step this is: a name and its value, from the step's number or else the noise level.
  struct StepId {
    std::string name;
    io::Json value;
    bool operator==(const StepId&) const = default;
  };
  std::optional<StepId> step_id() const;

  /// Indices of the single blocks that the host lists or counts, within the range, sorted.
  std::vector<int64_t> single_layers(int64_t start, int64_t end) const;

  /// The sub-map; null when there is none.
  const io::Json& students() const { return students_; }

 private:
  io::Json options_, students_;
};

/// The routing threshold, 0.5 when it isn't a finite number.
double host_threshold(const io::Json& value);
/// The same within [1e-4, 1 - 1e-4], as the stochastic policy needs it.
double host_policy_threshold(const io::Json& value);
/// At least 1e-3; 1 when it isn't a finite number.
double host_temperature(const io::Json& value);
/// sample, sampling, stochastic, bernoulli or gumbel, in any case; all else is the threshold policy.
bool host_policy_is_stochastic(const io::Json& value);

/// A routing mask of any nesting, flattened; nothing when an entry is no number.
std::optional<std::vector<float>> host_route_mask(const io::Json& value);

/// Only key padding masks are supported: [B, Nk], [B, 1, Nk], [B, 1, 1, Nk].
bool key_mask_supported(const std::vector<int64_t>& shape, int64_t batch, int64_t keys);
/// u8 [B, Nk] of a boolean mask (not 0 = keep). A row that keeps nothing keeps its first key.
std::vector<uint8_t> boolean_key_mask(std::span<const uint8_t> mask, int64_t batch, int64_t keys);
/// Of a mask that is added to the scores: 0 = keep, -infinity (anything below -1e4) = drop.
std::vector<uint8_t> additive_key_mask(std::span<const float> mask, int64_t batch, int64_t keys);

}  // namespace vkflux
