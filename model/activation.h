// Activations by the names that transformers and diffusers give them in configs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "autograd/ops.h"

namespace vkflux {

/// One activation; differentiable. Names that mean the same function are different values only by their name.
class Activation {
 public:
  /// Nothing for a name that isn't known.
  static std::optional<Activation> named(std::string_view name);
  /// All names, for messages: "gelu, gelu_new, ...".
  static std::string known();
  /// Error unsupported, naming `where` and what is known.
  static Activation of_config(std::string_view name, const std::string& where);

  std::string_view name() const { return row_->name; }
  Tensor operator()(const Tensor& x) const { return row_->apply(x); }
  /// The form that a linear layer applies by itself; none: there is no such form.
  op::Activation fused() const { return row_->fused; }
  bool same_function(const Activation& other) const { return row_->apply == other.row_->apply; }

  struct Row {
    std::string_view name;
    op::Activation fused;
    Tensor (*apply)(const Tensor& x);
  };

 private:
  explicit Activation(const Row& row) : row_(&row) {}
  const Row* row_;
};

}  // namespace vkflux
