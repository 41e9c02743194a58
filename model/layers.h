// The layers that all models are made of.
#pragma once

#include <memory>

#include "autograd/ops.h"
#include "model/module.h"
#include "model/side_path.h"

namespace vkflux {

/// y = x . weight^T + bias, x[..., in] -> [..., out].
struct Linear {
  int64_t in = 0, out = 0;
  bool has_bias = true;
  Tensor weight = {}, bias = {};
  std::shared_ptr<const SidePath> side = {};  // null: none

  template <class V>
  void visit(V& v) {
    v("weight", weight, Shape{out, in});
    if (has_bias) v("bias", bias, Shape{out});
  }
  Tensor operator()(const Tensor& x, op::Activation act = op::Activation::none) const {
    if (side) return with_side_path(*side, weight, bias, {x}, 0, out, act);
    return op::linear(x, weight, bias, act);
  }
  /// Outputs [start, start + n) alone.
  Tensor rows(const Tensor& x, int64_t start, int64_t n, op::Activation act = op::Activation::none) const {
    if (side) return with_side_path(*side, weight, bias, {x}, start, n, act);
    return op::linear(x, op::narrow(weight, 0, start, n), has_bias ? op::narrow(bias, 0, start, n) : Tensor(),
                      act);
  }
  /// The output for the concatenation of a[..., m] and b[..., in - m], which is only made where the weight's
  /// rows can't be cut: packed ones, and 16-bit ones whose second part doesn't begin where a buffer may.
  Tensor joined(const Tensor& a, const Tensor& b) const {
    if (side) return with_side_path(*side, weight, bias, {a, b}, 0, out, op::Activation::none);
    const int64_t m = a.dim(-1);
    const DType type = weight.dtype();
    if (is_packed(type) ||
        (type != DType::f32 &&
         static_cast<uint64_t>(m) * size_of(type) % a.device().caps().buffer_alignment != 0))
      return (*this)(op::concat({a, b}, a.rank() - 1));
    return op::add(op::linear(a, op::narrow(weight, 1, 0, m), bias),
                   op::linear(b, op::narrow(weight, 1, m, in - m)));
  }
};

/// A 2-D convolution over channels-last images, x[B, H, W, in] -> [B, H', W', out].
struct Conv2d {
  int64_t in = 0, out = 0, kernel = 3;
  Tensor weight = {}, bias = {};

  template <class V>
  void visit(V& v) {
    v("weight", weight, Shape{out, in, kernel, kernel});
    v("bias", bias, Shape{out});
  }
  Tensor operator()(const Tensor& x, const op::ConvOptions& options = {}) const {
    return op::conv2d(x, weight, bias, options);
  }
  /// A 1x1 convolution as a matrix product over channels.
  Tensor pointwise(const Tensor& x) const { return op::linear(x, op::reshape(weight, {out, in}), bias); }
};

/// Layer norm or group norm parameters.
struct NormAffine {
  int64_t width = 0;
  Tensor weight = {}, bias = {};

  template <class V>
  void visit(V& v) {
    v("weight", weight, Shape{width});
    v("bias", bias, Shape{width});
  }
};

}  // namespace vkflux
