// The reference's estimate of the device memory that one call of a student needs. It
// counts all image tokens as landmarks when their number isn't limited, so it is an upper bound.
#pragma once

#include <cstdint>

namespace vkflux {

struct MemoryCall {
  int64_t batch = 1, heads = 1;
  int64_t queries = 1, keys = 1;  // queries already capped when training
  int64_t head_dim = 128, feature_dim = 256;
  int64_t query_chunk = 256, key_chunk = 1024;
  int64_t landmark_max = 0;         // 0: no limit
  int64_t conditioning_tokens = 0;  // else the text tokens
  int64_t value_size = 4;           // bytes of an accumulated value
  bool training = false;
};

/// Bytes by the formula; sizes below 1 count as 1.
uint64_t estimate_memory(const MemoryCall& call);
/// The same, with the floor of 3 GiB (at the default dimensions and 24 heads) that the reference puts under
/// training calls, and a tenth on top.
uint64_t memory_to_reserve(const MemoryCall& call);

}  // namespace vkflux
