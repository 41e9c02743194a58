// softmax(q k^T scale + bias) v: checks, choice of the form, tape.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "autograd/ops.h"
#include "autograd/ops/attention_forms.h"
#include "autograd/run.h"
#include "autograd/tape.h"

namespace vkflux::op {
namespace {

// The first row that fits is used; the last fits always.
const std::array kForms{&kCoopAttention, &kFlashAttention, &kPanelAttention, &kComposedAttention};

const AttentionForm& choose(const AttentionProblem& p) {
  const std::string forced = forced_variant("attention");
  const auto asked = std::find_if(kForms.begin(), kForms.end(),
                                  [&](const AttentionForm* f) { return forced == f->name && f->fits(p); });
  const auto fitting =
      std::find_if(kForms.begin(), kForms.end() - 1, [&](const AttentionForm* f) { return f->fits(p); });
  const AttentionForm& form = **(asked == kForms.end() ? fitting : asked);
  took_variant("attention", form.name);
  return form;
}

void check(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  const bool f32 = q.dtype() == DType::f32 && k.dtype() == DType::f32 && v.dtype() == DType::f32;
  const bool ranks = q.rank() == 4 && k.rank() == 4 && v.rank() == 4;
  expect("attention",
         f32 && ranks && q.dim(0) == k.dim(0) && q.dim(1) == k.dim(1) && q.dim(3) == k.dim(3) &&
             v.dim(0) == k.dim(0) && v.dim(1) == k.dim(1) && v.dim(2) == k.dim(2) && q.dim(3) > 0,
         "needs f32 q[B, H, Nq, D], k[B, H, Nk, D] and v[B, H, Nk, Dv]", {&q, &k, &v});
  const Tensor& mask = options.key_mask;
  expect("attention",
         !mask.defined() || (mask.dtype() == DType::u8 && mask.shape() == Shape{k.dim(0), k.dim(2)}),
         "key_mask must be u8 [B, Nk]", {&mask, &k});
  const Tensor& bias = options.bias;
  expect(
      "attention",
      !bias.defined() || (bias.dtype() == DType::f32 && bias.shape() == Shape{q.dim(1), q.dim(2), k.dim(2)}),
      "bias must be f32 [H, Nq, Nk]", {&bias, &q, &k});
}

// x with zeros behind its last dimension, `width` in all.
Tensor widened(const Tensor& x, int64_t width) {
  if (x.dim(3) == width) return x;
  const Tensor zeros = Tensor::zeros(x.device(), {x.dim(0), x.dim(1), x.dim(2), width - x.dim(3)});
  return concat({x, zeros}, 3);
}

struct AttentionBackward {
  Tensor q, k, v, bias;  // as given: gradients go to these
  AttentionProblem problem;
  const AttentionForm* form;
  Tensor o, lse;
  uint64_t id;  // of the result

  void operator()(Grads& g) const {
    const auto wanted = [&](const Tensor& x) {
      return g.wants(x) ? Tensor::empty(x.device(), x.shape()) : Tensor();
    };
    const AttentionGradients out{o, lse, contiguous(g.of(id)), wanted(q), wanted(k), wanted(v), wanted(bias)};
    form->backward(problem, out);
    if (out.dq.defined()) g.add(q, out.dq);
    if (out.dk.defined()) g.add(k, out.dk);
    if (out.dv.defined()) g.add(v, out.dv);
    if (out.dbias.defined()) g.add(bias, out.dbias);
  }
};

}  // namespace

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const AttentionOptions& options) {
  check(q, k, v, options);
  constexpr int64_t kVector = 4;
  if (v.dim(3) != q.dim(3) || q.dim(3) % kVector != 0) {
    if (q.numel() == 0 || v.numel() == 0)
      return Tensor::zeros(q.device(), {q.dim(0), q.dim(1), q.dim(2), v.dim(3)});
    // The forms know one size, a multiple of 4. Columns of zeros change neither scores nor values.
    const int64_t width = (std::max(q.dim(3), v.dim(3)) + kVector - 1) / kVector * kVector;
    AttentionOptions same = options;
    if (same.scale == 0) same.scale = 1 / std::sqrt(static_cast<float>(q.dim(3)));
    return contiguous(
        narrow(attention(widened(q, width), widened(k, width), widened(v, width), same), 3, 0, v.dim(3)));
  }
  Tape* tape = Tape::wants({&q, &k, &v, &options.bias});
  const auto pause = Tape::pause();
  AttentionProblem p;
  p.q = contiguous(q), p.k = contiguous(k), p.v = contiguous(v);
  if (options.key_mask.defined()) p.key_mask = contiguous(options.key_mask);
  if (options.bias.defined()) p.bias = contiguous(options.bias);
  p.causal = options.causal, p.f16 = options.f16;
  p.batch = q.dim(0), p.heads = q.dim(1), p.nq = q.dim(2), p.nk = k.dim(2), p.d = q.dim(3);
  p.scale = options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<float>(p.d));
  if (q.numel() == 0 || k.numel() == 0) return Tensor::zeros(q.device(), q.shape());
  const Tensor o = Tensor::empty(q.device(), q.shape());
  const Tensor lse = Tensor::empty(q.device(), {p.batch, p.heads, p.nq});
  const AttentionForm& form = choose(p);
  form.forward(p, o, lse);
  if (tape) {
    tape->push("attention", {o}, AttentionBackward{q, k, v, options.bias, p, &form, o.alias(), lse, o.id()});
  }
  return o;
}

}  // namespace vkflux::op
