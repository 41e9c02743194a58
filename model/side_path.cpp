#include "model/side_path.h"

#include <algorithm>

#include "vk/error.h"
#include "vk/profiler.h"

namespace vkflux {
namespace {

// w times the input in parts, which is put together only where w's rows can't be cut.
Tensor product(const std::vector<Tensor>& parts, const Tensor& w, const Tensor& bias = {}) {
  if (parts.size() == 1) return op::linear(parts[0], w, bias);
  if (is_packed(w.dtype())) return op::linear(op::concat(parts, parts[0].rank() - 1), w, bias);
  Tensor y;
  int64_t column = 0;
  for (const Tensor& x : parts) {
    const Tensor columns = op::narrow(w, 1, column, x.dim(-1));
    y = y.defined() ? op::add(y, op::linear(x, columns)) : op::linear(x, columns, bias);
    column += x.dim(-1);
  }
  return y;
}

Tensor activate(const Tensor& x, op::Activation act) {
  switch (act) {
    case op::Activation::none:
      return x;
    case op::Activation::gelu_tanh:
      return op::unary(x, op::Unary::gelu_tanh);
    case op::Activation::gelu_erf:
      return op::unary(x, op::Unary::gelu_erf);
    case op::Activation::gelu_quick:
      return op::unary(x, op::Unary::gelu_quick);
    case op::Activation::silu:
      return op::unary(x, op::Unary::silu);
  }
  throw Error(ErrorCode::internal, "an activation that no function stands for");
}

// x[..., i1 i2] -> [..., o1 o2]: the inner product for every group of columns, then the outer one over them.
Tensor kronecker(const SidePath::Kronecker& k, const Tensor& x) {
  const int64_t o1 = k.outer.dim(0), i1 = k.outer.dim(1), o2 = k.inner.dim(0), i2 = k.inner.dim(1),
                rows = x.numel() / x.dim(-1);
  const Tensor inner = op::linear(op::reshape(x, {rows * i1, i2}), k.inner);  // [rows i1, o2]
  const Tensor turned = op::permute(op::reshape(inner, {rows, i1, o2}), {0, 2, 1});
  const Tensor outer = op::linear(turned, k.outer);  // [rows, o2, o1]
  Shape shape = x.shape();
  shape[-1] = o1 * o2;
  return op::reshape(op::permute(outer, {0, 2, 1}), shape);
}

// y with x added to its columns [at, at + x's).
Tensor add_columns(const Tensor& y, const Tensor& x, int64_t at) {
  const int64_t n = y.dim(-1), width = x.dim(-1), rest = n - at - width;
  if (width == n) return op::add(y, x);
  const int last = y.rank() - 1;
  std::vector<Tensor> parts;
  if (at > 0) parts.push_back(op::narrow(y, last, 0, at));
  parts.push_back(op::add(op::narrow(y, last, at, width), x));
  if (rest > 0) parts.push_back(op::narrow(y, last, at + width, rest));
  return op::concat(parts, last);
}

}  // namespace

uint64_t SidePath::bytes() const {
  uint64_t n = 0;
  for (const Tensor* t : {&down, &up, &dense, &gain, &bias})
    if (t->defined()) n += t->bytes();
  for (const Kronecker& k : products) n += k.outer.bytes() + k.inner.bytes();
  return n;
}

Tensor with_side_path(const SidePath& side, const Tensor& weight, const Tensor& bias,
                      const std::vector<Tensor>& parts, int64_t start, int64_t n, op::Activation act) {
  const bool whole = start == 0 && n == weight.dim(0);
  const auto cut = [&](const Tensor& t) { return t.defined() && !whole ? op::narrow(t, 0, start, n) : t; };
  Tensor y = product(parts, cut(weight), side.gain.defined() ? Tensor() : cut(bias));
  const ProfileScope scope(y.device().profiler(), "lora");
  if (side.gain.defined()) {
    y = op::mul(y, cut(side.gain));
    if (bias.defined()) y = op::add(y, cut(bias));
  }
  if (side.down.defined()) {
    y = op::add(y, op::linear(product(parts, side.down), cut(side.up), cut(side.bias)));
  } else if (side.bias.defined()) {
    y = op::add(y, cut(side.bias));
  }
  if (side.dense.defined()) y = op::add(y, product(parts, cut(side.dense)));
  for (const SidePath::Kronecker& k : side.products) {
    const int64_t rows = k.outer.dim(0) * k.inner.dim(0), first = std::max(k.row, start),
                  last = std::min(k.row + rows, start + n);
    if (first >= last) continue;
    const Tensor x = parts.size() == 1 ? parts[0] : op::concat(parts, parts[0].rank() - 1);
    Tensor part = kronecker(k, x);
    if (last - first != rows) part = op::narrow(part, part.rank() - 1, first - k.row, last - first);
    y = add_columns(y, part, first - start);
  }
  return activate(y, act);
}

}  // namespace vkflux
