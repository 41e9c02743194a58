// What a denoising transformer is told about the pictures besides noise: named tensors with the pictures as
// first dimension ("txt", "y"), made by a family's text encoders and read by its backbone.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "autograd/tensor.h"

namespace vkflux {

// What pictures tell a transformer, beside its texts: parts of a condition with these names, the same in all
// steps. Backbone::input() puts them to the noisy tokens.
inline constexpr const char* kExtraChannels = "extra_channels";  // [B, tokens, n]: behind each token's own
inline constexpr const char* kReferenceTokens =
    "reference_tokens";  // [B, n, channels]: behind the drawn tokens

class Condition {
 public:
  Condition() = default;
  Condition(std::initializer_list<std::pair<std::string, Tensor>> parts) : parts_(parts) {}

  /// The tensor of this name; undefined when there is none.
  Tensor operator[](std::string_view name) const;
  void set(std::string name, Tensor value);
  const std::vector<std::pair<std::string, Tensor>>& parts() const { return parts_; }
  template <class V>
  void visit(const V& v) {
    for (auto& [name, x] : parts_) v(name, x);
  }
  template <class V>
  void visit(const V& v) const {
    for (const auto& [name, x] : parts_) v(name, x);
  }
  bool empty() const { return parts_.empty(); }
  int64_t batch() const { return parts_.empty() ? 0 : parts_.front().second.dim(0); }
  uint64_t bytes() const;

  /// Pictures [start, start + n), as views.
  Condition narrow(int64_t start, int64_t n) const;
  /// One picture for each id, copied. Error invalid_argument for ids outside.
  Condition pick(std::span<const int32_t> ids) const;
  /// One picture as `batch` equal ones; itself when there are as many already.
  Condition repeat(int64_t batch) const;
  /// The same with own dense memory.
  Condition contiguous() const;
  /// All pictures after one another. Error invalid_argument when the parts differ.
  static Condition concat(const std::vector<Condition>& all);

 private:
  template <class Fn>
  Condition map(const Fn& fn) const;
  std::vector<std::pair<std::string, Tensor>> parts_;
};

}  // namespace vkflux
