// The two branches of an HKR layer.
#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "autograd/tape.h"
#include "model/attention/hkr/hkr.h"

namespace vkflux {
namespace {

using Values = std::vector<Tensor>;
using Function = std::function<Values(const Values&)>;

void add_parameters(const HkrFeatures& phi, Values& out) {
  for (const Linear& l : phi.linears) {
    out.push_back(l.weight);
    out.push_back(l.bias);
  }
}

// Floats that the tape keeps per token: inputs, both sides of every SiLU, features.
double kept_per_token(const HkrFeatures& phi) {
  int64_t n = 0;
  for (const Linear& l : phi.linears) n += l.in + l.out;
  return static_cast<double>(n + phi.linears.back().out);
}

Tensor tokens(const Tensor& x, int64_t start, int64_t length) {
  return length == x.dim(2) ? x : op::narrow(x, 2, start, length);
}

Tensor joined(const Values& parts, int dim) {
  return parts.size() == 1 ? parts[0] : op::concat(parts, dim);
}

void check(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& mask) {
  const auto usable = [](const Tensor& x) { return x.defined() && x.dtype() == DType::f32 && x.rank() == 4; };
  expect("kernel regression",
         usable(q) && usable(k) && usable(v) && q.dim(0) == k.dim(0) && q.dim(1) == k.dim(1) &&
             q.dim(3) == k.dim(3) && v.dim(0) == k.dim(0) && v.dim(1) == k.dim(1) && v.dim(2) == k.dim(2),
         "needs f32 q[B, H, Nq, D], k[B, H, Nk, D] and v[B, H, Nk, Dv]", {&q, &k, &v});
  expect("kernel regression",
         !mask.defined() || (mask.dtype() == DType::u8 && mask.shape() == Shape{k.dim(0), k.dim(2)}),
         "key_mask must be u8 [B, Nk]; masks per query are not supported", {&mask, &k});
}

struct Regression {
  const HkrFeatures &phi_q, &phi_k;
  const HkrOptions& options;
  bool keep;  // what backward reads, instead of computing it again

  Values call(const HkrFeatures& phi, const Function& fn, const Values& inputs) const {
    if (keep) return fn(inputs);
    Values parameters;
    add_parameters(phi, parameters);
    return checkpoint(fn, inputs, parameters);
  }

  // Sums over the keys of phi_k(k) (v, 1): [B, H, F, width], chunk by chunk in order.
  Tensor sums(const Tensor& k, const Tensor& v, const Tensor& mask) const {
    const int64_t n = k.dim(2), chunk = std::max<int64_t>(1, options.key_chunk);
    Tensor total;
    for (int64_t start = 0; start == 0 || start < n; start += chunk) {
      const int64_t length = std::min(chunk, n - start);
      const Function fn = [phi = phi_k, options = options, mask, start, length](const Values& x) -> Values {
        return {op::matmul_tn(phi(x[0], options), op::kernel_values(x[1], mask, start, length))};
      };
      const Tensor part = call(phi_k, fn, {tokens(k, start, length), v})[0];
      total = total.defined() ? op::add(total, part) : part;
    }
    return total;
  }

  KernelBranch quotients(const Tensor& q, const Tensor& total, int64_t cols) const {
    const int64_t n = q.dim(2), chunk = std::max<int64_t>(1, options.query_chunk);
    Values out, den;
    for (int64_t start = 0; start < n; start += chunk) {
      const int64_t length = std::min(chunk, n - start);
      const Function fn = [phi = phi_q, options = options, cols](const Values& x) -> Values {
        const auto r = op::kernel_quotient(op::matmul(phi(x[0], options), x[1]), cols, options.eps);
        return {r.y, r.den};
      };
      const Values r = call(phi_q, fn, {tokens(q, start, length), total});
      out.push_back(r[0]);
      den.push_back(r[1]);
    }
    KernelBranch branch{joined(out, 2), {}};
    const auto untaped = Tape::pause();
    branch.den_min = op::min_all(joined(den, 2));
    return branch;
  }
};

}  // namespace

KernelBranch kernel_regression(const HkrFeatures& phi_q, const HkrFeatures& phi_k, const Tensor& q,
                               const Tensor& k, const Tensor& v, const Tensor& key_mask,
                               const HkrOptions& options) {
  check(q, k, v, key_mask);
  Device& device = q.device();
  const int64_t heads = q.dim(0) * q.dim(1), cols = v.dim(3);
  if (q.numel() == 0) {
    return {Tensor::zeros(device, {q.dim(0), q.dim(1), q.dim(2), cols}),
            Tensor::full(device, {1}, std::numeric_limits<float>::infinity())};
  }
  const double kept = static_cast<double>(heads * q.dim(2)) * kept_per_token(phi_q) +
                      static_cast<double>(heads * k.dim(2)) * kept_per_token(phi_k);
  const Regression r{phi_q, phi_k, options, 4 * kept <= static_cast<double>(options.keep_limit)};
  if (k.dim(2) == 0) {
    return {Tensor::zeros(device, {q.dim(0), q.dim(1), q.dim(2), cols}), Tensor::zeros(device, {1})};
  }
  return r.quotients(q, r.sums(k, v, key_mask), cols);
}

Landmarks landmarks_of(const Tensor& k, const Tensor& key_mask, int64_t conditioning,
                       const LandmarkOptions& options) {
  const int64_t batch = k.dim(0), heads = k.dim(0) * k.dim(1), keys = k.dim(2);
  std::vector<uint8_t> mask, valid;
  if (key_mask.defined()) {
    mask = op::contiguous(key_mask).to_host_bytes();
    valid.assign(static_cast<size_t>(keys), 0);
    for (size_t i = 0; i < mask.size(); ++i) valid[i % valid.size()] |= mask[i];
  }
  const std::vector<int32_t> index = select_landmarks(keys, conditioning, options, valid);
  Landmarks out;
  out.count = static_cast<int64_t>(index.size());
  std::vector<int32_t> rows;
  for (int64_t h = 0; h < heads; ++h) {
    for (const int32_t i : index) rows.push_back(static_cast<int32_t>(h * keys) + i);
  }
  out.rows = Tensor::from(k.device(), std::span<const int32_t>(rows), {static_cast<int64_t>(rows.size())});
  if (mask.empty()) return out;
  std::vector<uint8_t> keep;
  for (int64_t b = 0; b < batch; ++b) {
    for (const int32_t i : index) keep.push_back(mask[static_cast<size_t>(b * keys + i)]);
  }
  keep = safe_mask(std::move(keep), batch);
  out.key_mask = Tensor::from(k.device(), std::span<const uint8_t>(keep), {batch, out.count});
  return out;
}

Tensor landmark_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Landmarks& landmarks,
                          const HkrOptions& options) {
  if (landmarks.count == 0 || q.numel() == 0)
    return Tensor::zeros(q.device(), {q.dim(0), q.dim(1), q.dim(2), v.dim(3)});
  const auto gathered = [&](const Tensor& x) {
    const int64_t d = x.dim(3), rows = x.numel() / d;
    return op::reshape(op::gather_rows(op::reshape(x, {rows, d}), landmarks.rows),
                       {k.dim(0), k.dim(1), landmarks.count, d});
  };
  Tensor queries = q, keys = gathered(k);
  if (options.landmarks.qk_norm) {
    queries = op::soft_l2norm(q, options.eps);
    keys = op::soft_l2norm(keys, options.eps);
  }
  op::AttentionOptions attention;
  attention.key_mask = landmarks.key_mask;
  return op::attention(queries, keys, gathered(v), attention);
}

}  // namespace vkflux
