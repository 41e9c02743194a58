// The HKR layer against a double-precision reference, and the properties that don't need one.
#include "model/attention/hkr/hkr.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "autograd/tape.h"
#include "model/attention/hkr/scalar_embedding.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

using Rows = std::vector<double>;

struct Problem {
  int64_t batch = 1, heads = 2, nq = 7, nk = 7;
  HkrConfig config{8, 32, 32, 3};
  HkrOptions options;
  std::optional<float> sigma, cfg;
  std::vector<uint8_t> mask;  // [batch, nk] or empty
  int probes = 3;

  Problem() { options.landmarks = {0.3, 2, 0, 3, false}; }
  std::string str() const {
    return fmt::format("B{} H{} Nq{} Nk{} D{} F{} W{} L{}", batch, heads, nq, nk, config.head_dim,
                       config.feature_dim, config.width(), config.layers);
  }
  Tensor device_mask() const {
    return mask.empty() ? Tensor() : Tensor::from(device(), std::span<const uint8_t>(mask), {batch, nk});
  }
  HkrCall call(const Tensor& q, const Tensor& k, const Tensor& v) const {
    return {q, k, v, device_mask(), {std::nullopt, std::nullopt, sigma, cfg}};
  }
};

// q, k, v, then the parameters in the order of visit(): alpha, phi_q, phi_k, conditioner.
std::vector<Host> inputs_of(const Problem& p) {
  const int64_t d = p.config.head_dim;
  std::vector<Host> in{random({p.batch, p.heads, p.nq, d}, 1), random({p.batch, p.heads, p.nk, d}, 2),
                       random({p.batch, p.heads, p.nk, d}, 3)};
  HkrLayer layer(p.config);
  uint64_t seed = 10;
  for (const Param& param : parameters(layer)) {
    const double fan = param.shape.rank() == 2 ? static_cast<double>(param.shape[1]) : 16.0;
    in.push_back(random(param.shape, seed++, param.shape.rank() == 0 ? 1 : 1.3 / std::sqrt(fan)));
    in.back().grad = p.sigma.has_value() || param.name.find("conditioner") == std::string::npos;
  }
  return in;
}

HkrLayer layer_of(const Problem& p, const std::vector<Tensor>& t) {
  HkrLayer layer(p.config, p.options);
  size_t i = 3;
  for (const Param& param : parameters(layer)) *param.tensor = t[i++];
  return layer;
}

Rows linear(const Rows& x, const Host& w, const Host& b, bool silu) {
  const auto in = static_cast<size_t>(w.shape[1]), out = static_cast<size_t>(w.shape[0]);
  Rows y(x.size() / in * out);
  for (size_t r = 0; r < x.size() / in; ++r) {
    for (size_t o = 0; o < out; ++o) {
      double s = b[o];
      for (size_t i = 0; i < in; ++i) s += w[o * in + i] * x[r * in + i];
      y[r * out + o] = silu ? s / (1 + std::exp(-s)) : s;
    }
  }
  return y;
}

Rows features(Rows x, const std::vector<Host>& in, size_t first, const Problem& p) {
  const auto layers = static_cast<size_t>(p.config.layers), f = static_cast<size_t>(p.config.feature_dim);
  for (size_t i = 0; i < layers; ++i) x = linear(x, in[first + 2 * i], in[first + 2 * i + 1], i + 1 < layers);
  for (double& u : x) u = u > 0 ? u + 1 : std::exp(u);
  if (!p.options.feature_norm) return x;
  for (size_t r = 0; r < x.size(); r += f) {
    double s = 0;
    for (size_t i = r; i < r + f; ++i) s += x[i] * x[i];
    for (size_t i = r; i < r + f; ++i) x[i] /= std::sqrt(s) + static_cast<double>(p.options.eps);
  }
  return x;
}

double dot(const Rows& a, size_t i, const Rows& b, size_t j, size_t n) {
  double s = 0;
  for (size_t c = 0; c < n; ++c) s += a[i * n + c] * b[j * n + c];
  return s;
}

struct Sizes {
  size_t nq, nk, d, heads;
  explicit Sizes(const Problem& p)
      : nq(static_cast<size_t>(p.nq)),
        nk(static_cast<size_t>(p.nk)),
        d(static_cast<size_t>(p.config.head_dim)),
        heads(static_cast<size_t>(p.heads)) {}
};

// Values of v by weights over keys, normalised.
void average(const Rows& weights, const Rows& v, size_t head, const Sizes& n, double floor, double* out) {
  double total = 0;
  for (const double w : weights) total += w;
  for (size_t c = 0; c < n.d; ++c) {
    double s = 0;
    for (size_t j = 0; j < n.nk; ++j) s += weights[j] * v[(head * n.nk + j) * n.d + c];
    out[c] = s / std::max(total, floor);
  }
}

struct ReferenceBranches {
  Rows kernel, land;
};

ReferenceBranches branches(const std::vector<Host>& in, const Problem& p) {
  const Sizes n(p);
  const auto f = static_cast<size_t>(p.config.feature_dim), layers = static_cast<size_t>(p.config.layers);
  const Rows pq = features(in[0].data, in, 4, p), pk = features(in[1].data, in, 4 + 2 * layers, p);
  std::vector<uint8_t> valid;
  if (!p.mask.empty()) {
    valid.assign(n.nk, 0);
    for (size_t i = 0; i < p.mask.size(); ++i) valid[i % n.nk] |= p.mask[i];
  }
  const int64_t t = conditioning_tokens(p.nk, {}, {}, p.options.landmarks);
  const std::vector<int32_t> marks = select_landmarks(p.nk, t, p.options.landmarks, valid);
  ReferenceBranches out{Rows(in[0].data.size()), Rows(in[0].data.size())};
  for (size_t row = 0; row < out.kernel.size() / n.d; ++row) {
    const size_t head = row / n.nq, b = head / n.heads;
    const auto keep = [&](size_t j) { return p.mask.empty() || p.mask[b * n.nk + j] != 0; };
    Rows weights(n.nk, 0.0), soft(n.nk, 0.0);
    for (size_t j = 0; j < n.nk; ++j) weights[j] = keep(j) ? dot(pq, row, pk, head * n.nk + j, f) : 0;
    bool any = false;
    for (const int32_t j : marks) any = any || keep(static_cast<size_t>(j));
    for (const int32_t m : marks) {
      const auto j = static_cast<size_t>(m);
      if (keep(j) || (!any && m == marks[0]))
        soft[j] = std::exp(dot(in[0].data, row, in[1].data, head * n.nk + j, n.d) /
                           std::sqrt(static_cast<double>(n.d)));
    }
    average(weights, in[2].data, head, n, static_cast<double>(p.options.eps), &out.kernel[row * n.d]);
    average(soft, in[2].data, head, n, 1e-300, &out.land[row * n.d]);
  }
  return out;
}

void condition(ReferenceBranches& b, const std::vector<Host>& in, const Problem& p) {
  Rows e;
  for (const float s : {*p.sigma, p.cfg.value_or(1)})
    for (const float x : scalar_embedding(s, 32)) e.push_back(x);
  const size_t first = in.size() - 4;
  const Rows c = linear(linear(e, in[first], in[first + 1], true), in[first + 2], in[first + 3], false);
  for (double& x : b.kernel) x = x * (1 + c[0]) + c[1];
  for (double& x : b.land) x = x * (1 + c[2]) + c[3];
}

// min(d / mean d, 3) / 3 of every token.
Rows gates(const ReferenceBranches& b, const Problem& p) {
  const Sizes n(p);
  Rows d(b.kernel.size() / n.d), g(d.size());
  for (size_t r = 0; r < d.size(); ++r)
    d[r] = 1 - dot(b.kernel, r, b.land, r, n.d) /
                   std::sqrt(dot(b.kernel, r, b.kernel, r, n.d) * dot(b.land, r, b.land, r, n.d));
  for (size_t r = 0; r < d.size(); ++r) {
    double mean = 0;
    for (size_t i = 0; i < n.nq; ++i) mean += d[r / n.nq * n.nq + i] / static_cast<double>(n.nq);
    g[r] = std::min(d[r] / std::max(mean, 1e-6), 3.0) / 3;
  }
  return g;
}

ReferenceBranches conditioned(const std::vector<Host>& in, const Problem& p) {
  ReferenceBranches b = branches(in, p);
  if (p.sigma) condition(b, in, p);
  return b;
}

// g is given: the layer takes it as a constant.
std::vector<Host> reference(const std::vector<Host>& in, const Problem& p, const Rows& g) {
  const ReferenceBranches b = conditioned(in, p);
  Host y{in[0].shape, Rows(b.kernel.size()), true};
  for (size_t i = 0; i < y.data.size(); ++i) {
    const double shift =
        p.options.adaptive ? static_cast<double>(p.options.gamma) * (g[i / Sizes(p).d] - 0.5) : 0;
    const double a = static_cast<double>(p.options.alpha_max) / (1 + std::exp(-in[3][0] - shift));
    y[i] = b.kernel[i] + a * (b.land[i] - b.kernel[i]);
  }
  return {y};
}

void check(const Problem& p) {
  const std::vector<Host> in = inputs_of(p);
  const Rows g = gates(conditioned(in, p), p);
  CheckOptions options;
  options.max_probes = p.probes;
  check_op(
      p.str(), in,
      [&](const auto& t) { return std::vector{layer_of(p, t).forward(p.call(t[0], t[1], t[2])).out}; },
      [&](const auto& h) { return reference(h, p, g); }, options);
}

TEST(Hkr, AgreesWithReference) {
  Problem p;
  p.sigma = 0.7f, p.cfg = 3.5f;
  check(p);
  p.options.query_chunk = 3, p.options.key_chunk = 2, p.options.keep_limit = 0;  // computed again in backward
  check(p);
  p.options = Problem().options;
  p.nq = p.nk = 1;
  check(p);
}

TEST(Hkr, AgreesWithReferenceOnOtherConfigs) {
  Problem p;
  p.config = {64, 32, 32, 2};
  p.nq = 5, p.nk = 33;
  p.sigma = 0.1f;
  p.options.adaptive = false;
  p.options.feature_norm = false;
  p.options.key_chunk = 16;
  check(p);
}

TEST(Hkr, AgreesWithReferenceUnderMasks) {
  Problem p;
  p.batch = 2;
  p.nq = 4, p.nk = 9;
  p.mask = {1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0};
  p.options.landmarks = {0.4, 1, 2, 2, true};
  p.options.landmarks.qk_norm = false;
  p.options.key_chunk = 4, p.options.keep_limit = 0;
  check(p);
}

struct Made {
  Problem p;
  std::vector<Tensor> t;
  HkrLayer layer;
  explicit Made(const Problem& problem) : p(problem), t(uploaded(problem)), layer(layer_of(problem, t)) {}
  static std::vector<Tensor> uploaded(const Problem& p) {
    std::vector<Tensor> t;
    for (const Host& h : inputs_of(p)) t.push_back(upload(h));
    return t;
  }
  HkrCall call() const { return p.call(t[0], t[1], t[2]); }
};

double difference(const Tensor& a, const Tensor& b) {
  const std::vector<float> want = b.to_host();
  return error_of(a.to_host(), Rows(want.begin(), want.end()));
}

TEST(Hkr, ChunksChangeOnlyRounding) {
  Problem p;
  p.nq = 33, p.nk = 37;
  Made m(p);
  const HkrResult whole = m.layer.forward(m.call());
  for (const auto& [q, k] : {std::pair{1, 1}, {3, 5}, {32, 36}, {0, -1}}) {
    m.layer.options().query_chunk = q, m.layer.options().key_chunk = k;
    const HkrResult r = m.layer.forward(m.call());
    EXPECT_LT(difference(r.out, whole.out), 1e-5) << q << " " << k;
    EXPECT_LT(difference(r.den_min, whole.den_min), 1e-5) << q << " " << k;
  }
}

TEST(Hkr, MaskedKeysAreAsGoodAsDeleted) {
  Problem p;
  p.nk = 9;
  const Made m(p);
  Problem masked = p;
  masked.mask = {1, 1, 1, 1, 1, 0, 0, 0, 0};
  const auto kernel = [&](int64_t keys, const Tensor& mask) {
    const Tensor k = m.t[1].slice(2, 0, keys), v = m.t[2].slice(2, 0, keys);
    return kernel_regression(m.layer.phi_q, m.layer.phi_k, m.t[0], k, v, mask, p.options).out;
  };
  EXPECT_LT(difference(kernel(9, masked.device_mask()), kernel(5, {})), 1e-6);
  const std::vector<uint8_t> none(9, 0);
  const Tensor nothing = kernel(9, Tensor::from(device(), std::span<const uint8_t>(none), {1, 9}));
  for (const float y : nothing.to_host()) EXPECT_EQ(y, 0);
}

TEST(Hkr, AllKeysLandmarksIsFullAttention) {
  Problem p;
  p.nk = 12;
  p.options.landmarks.fraction = 1;
  const Made m(p);
  EXPECT_LT(difference(m.layer.forward(m.call()).out_land, op::attention(m.t[0], m.t[1], m.t[2])), 1e-6);
}

TEST(Hkr, ConditionerStartsAsIdentityAndIsSkippedWithoutSigma) {
  Problem p;
  p.sigma = 0.4f;
  Made m(p);
  initialise(parameters(m.layer), hkr_init(p.config), 3);
  const HkrResult with = m.layer.forward(m.call());
  HkrCall call = m.call();
  ASSERT_TRUE(with.conditioner.defined());
  for (const auto& sigma :
       {std::optional<float>(), std::optional<float>(NAN), std::optional<float>(INFINITY)}) {
    call.context.sigma = sigma;
    const HkrResult r = m.layer.forward(call);
    EXPECT_FALSE(r.conditioner.defined());
    EXPECT_LT(difference(r.out, with.out), 1e-6);
  }
}

TEST(Hkr, AbsentGuidanceIsOne) {
  Problem p;
  p.sigma = 0.4f;
  const Made m(p);
  HkrCall call = m.call();
  const Tensor absent = m.layer.forward(call).conditioner;
  call.context.cfg = NAN;
  EXPECT_EQ(m.layer.forward(call).conditioner.to_host(), absent.to_host());
  call.context.cfg = 1.0f;
  EXPECT_EQ(m.layer.forward(call).conditioner.to_host(), absent.to_host());
  call.context.cfg = 2.0f;
  EXPECT_NE(m.layer.forward(call).conditioner.to_host(), absent.to_host());
}

TEST(Hkr, CallsOfOtherShapesDontMixUp) {
  Problem p;
  const Made m(p);
  Problem longer = p;
  longer.nk = 11;
  const Made other(longer);
  const HkrResult first = m.layer.forward(m.call());
  const HkrResult second = m.layer.forward(other.call());
  EXPECT_EQ(m.layer.forward(m.call()).out.to_host(), first.out.to_host());
  EXPECT_EQ(other.layer.forward(other.call()).out_land.to_host(), second.out_land.to_host());
  HkrCall text = m.call();
  text.context.text = 0;
  EXPECT_NE(m.layer.forward(text).out_land.to_host(), first.out_land.to_host());
}

TEST(Hkr, NoQueriesAndNoKeys) {
  Problem p;
  p.nq = 0;
  const Made queries(p);
  const HkrResult r = queries.layer.forward(queries.call());
  EXPECT_EQ(r.out.shape(), (Shape{1, 2, 0, 8}));
  EXPECT_EQ(r.den_min.item(), std::numeric_limits<float>::infinity());
  p.nq = 3, p.nk = 0;
  const Made keys(p);
  for (const float y : keys.layer.forward(keys.call()).out.to_host()) EXPECT_EQ(y, 0);
}

TEST(Hkr, RefusesShapesThatDontFit) {
  const Made m{Problem()};
  HkrCall call = m.call();
  call.q = Tensor::zeros(device(), {1, 2, 7, 16});
  EXPECT_THROW(m.layer.forward(call), Error);
  call = m.call();
  call.v = Tensor::zeros(device(), {1, 2, 6, 8});
  EXPECT_THROW(m.layer.forward(call), Error);
  call = m.call();
  call.key_mask = Tensor::zeros(device(), {1, 7, 7}, DType::u8);
  EXPECT_THROW(m.layer.forward(call), Error);
}

}  // namespace
}  // namespace vkflux::test
