#include "autograd/optim.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

struct AdamWState {
  std::vector<double> p, m, v;
};

void reference_step(AdamWState& s, const std::vector<double>& g, const AdamWOptions& o, int64_t step,
                    double grad_scale, const std::vector<uint8_t>& mask) {
  const double b1 = static_cast<double>(o.beta1), b2 = static_cast<double>(o.beta2),
               lr = static_cast<double>(o.lr);
  for (size_t i = 0; i < s.p.size(); ++i) {
    const double gi = g[i] * grad_scale;
    if (mask.empty() || mask[i / 64] != 0) s.p[i] *= 1 - lr * static_cast<double>(o.weight_decay);
    s.m[i] = b1 * s.m[i] + (1 - b1) * gi;
    s.v[i] = b2 * s.v[i] + (1 - b2) * gi * gi;
    const double t = static_cast<double>(step);
    const double denominator = std::sqrt(s.v[i] / (1 - std::pow(b2, t))) + static_cast<double>(o.eps);
    s.p[i] -= lr / (1 - std::pow(b1, t)) * s.m[i] / denominator;
  }
}

void check_adamw(int64_t n, bool scaled, bool masked) {
  SCOPED_TRACE(testing::Message() << n << " scaled " << scaled << " masked " << masked);
  AdamWOptions o;
  o.lr = 0.02f;
  o.weight_decay = 0.1f;
  const Host p = random({n}, 1);
  AdamWState want{p.data, std::vector<double>(p.data.size()), std::vector<double>(p.data.size())};
  const Tensor param = upload(p), m = Tensor::zeros(device(), {n}), v = Tensor::zeros(device(), {n});
  std::vector<uint8_t> mask;
  if (masked) {
    for (int64_t i = 0; i * 64 < n; ++i) mask.push_back(i % 3 == 0 ? 1 : 0);
  }
  const Tensor scale = scaled ? Tensor::full(device(), {}, 0.25f) : Tensor();
  const Tensor bytes =
      masked ? Tensor::from(device(), std::span<const uint8_t>(mask), {static_cast<int64_t>(mask.size())})
             : Tensor();
  for (int64_t step = 1; step <= 4; ++step) {
    const Host g = random({n}, 10 + static_cast<uint64_t>(step));
    adamw(param, upload(g), m, v, o, step, scale, bytes);
    reference_step(want, g.data, o, step, scaled ? 0.25 : 1, mask);
  }
  EXPECT_LE(error_of(param.to_host(), want.p), 1e-5);
  EXPECT_LE(error_of(m.to_host(), want.m), 1e-5);
  EXPECT_LE(error_of(v.to_host(), want.v), 1e-5);
}

TEST(Optim, WhatIsNotFiniteChangesNothing) {
  const float inf = std::numeric_limits<float>::infinity();
  const auto one = [](float x) { return Tensor::full(device(), {}, x); };
  const int64_t sizes[] = {70, 640};  // the second for the variant of wide stores
  for (const int64_t n : sizes) {
    for (const auto& [norm, loss, steps] :
         {std::tuple{2.0f, 1.0f, true}, {inf, 1.0f, false}, {2.0f, NAN, false}}) {
      const Tensor p = Tensor::full(device(), {n}, 1.0f), g = Tensor::full(device(), {n}, norm),
                   m = Tensor::zeros(device(), {n}), v = Tensor::zeros(device(), {n});
      adamw(p, g, m, v, {}, 1, clip_scale(one(norm), 1, one(loss)));
      for (float x : p.to_host()) EXPECT_EQ(x != 1, steps);
      for (float x : m.to_host()) EXPECT_EQ(x != 0, steps);
      for (float x : v.to_host()) EXPECT_EQ(x != 0, steps);
    }
  }
}

TEST(Optim, AdamWFollowsTheDefinition) {
  check_adamw(1, false, false);
  check_adamw(67, true, false);
  check_adamw(640, false, true);
  check_adamw(4099, true, true);
}

TEST(Optim, AdamWRejectsBadArguments) {
  const Tensor a = Tensor::zeros(device(), {8}), b = Tensor::zeros(device(), {9});
  EXPECT_THROW(adamw(a, b, a, a, {}, 1), Error);
  EXPECT_THROW(adamw(a, a, a, a, {}, 0), Error);
  EXPECT_THROW(adamw(a, a, a, a, {}, 1, b), Error);
}

TEST(Optim, EmaAndScaleWorkInPlace) {
  const Host e = random({131}, 2), p = random({131}, 3);
  const Tensor ema = upload(e), scaled = upload(p);
  ema_update(ema, upload(p), 0.9f);
  scale_inplace(scaled, Tensor::full(device(), {1}, -1.5f));
  std::vector<double> want_ema, want_scaled;
  for (size_t i = 0; i < e.data.size(); ++i) {
    want_ema.push_back(0.9 * e[i] + 0.1 * p[i]);
    want_scaled.push_back(-1.5 * p[i]);
  }
  EXPECT_LE(error_of(ema.to_host(), want_ema), 1e-6);
  EXPECT_LE(error_of(scaled.to_host(), want_scaled), 1e-6);
}

TEST(Optim, GlobalNormOfAnyLengthIsRepeatable) {
  for (const char* variant : {"simd", "gpu"}) {
    const VariantOverride v("global_norm", variant);
    for (int64_t n : {1, 3, 64, 1021, 100003}) {
      const Host g = random({n}, static_cast<uint64_t>(n));
      double s = 0;
      for (double x : g.data) s += x * x;
      const Tensor t = upload(g);
      const float norm = global_norm(t).item();
      EXPECT_NEAR(static_cast<double>(norm) / std::sqrt(s), 1, 1e-5) << n << " " << variant;
      EXPECT_EQ(norm, global_norm(t).item());
    }
  }
  EXPECT_EQ(global_norm(Tensor::zeros(device(), {0})).item(), 0);
}

TEST(Optim, ClipScaleNeverEnlarges) {
  EXPECT_NEAR(clip_scale(Tensor::full(device(), {}, 4.0f), 1.0f).item(), 1 / (4 + 1e-6), 1e-7);
  EXPECT_EQ(clip_scale(Tensor::full(device(), {}, 0.5f), 1.0f).item(), 1.0f);
}

TEST(Optim, ArenaAlignsItsTensorsAndStartsAtZero) {
  const Arena arena(device(), {{"a", {3}}, {"b", {2, 40}}, {"c", {}}});
  ASSERT_EQ(arena.size(), 3u);
  EXPECT_EQ(arena.flat().numel(), 64 + 128 + 64);
  for (const Tensor& t : arena.tensors()) EXPECT_EQ(t.offset() % 64, 0);
  arena[1].copy_from_host(std::vector<float>(80, 2.0f));
  const std::vector<float> flat = arena.flat().to_host();
  for (size_t i = 0; i < flat.size(); ++i) EXPECT_EQ(flat[i], i >= 64 && i < 144 ? 2.0f : 0.0f) << i;
}

}  // namespace
}  // namespace vkflux::test
