#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

constexpr float kEps = 1e-6f;

size_t z(int64_t x) {
  return static_cast<size_t>(x);
}

Host rope_table(int64_t batch, int64_t n, int64_t d) {
  const Host angle = random({batch, n, d / 2}, 77, 2);
  Host t{{batch, n, d / 2, 2}, {}, false};
  for (double a : angle.data) {
    t.data.push_back(static_cast<double>(static_cast<float>(std::cos(a))));
    t.data.push_back(static_cast<double>(static_cast<float>(std::sin(a))));
  }
  return t;
}

// Pairs of row (b, token) of x[B, H, N, D] rotated by table (or unchanged without one).
Host rotated(Host x, const Host* table) {
  if (!table) return x;
  const size_t heads = z(x.shape[1]), nd = z(x.shape[2] * x.shape[3]);
  const bool per_batch = table->shape[0] > 1;
  for (size_t i = 0; i < x.data.size(); i += 2) {
    const size_t b = i / (heads * nd), t = (per_batch ? b * nd : 0) + i % nd;
    const double c = (*table)[t], s = (*table)[t + 1], u = x[i], v = x[i + 1];
    x[i] = c * u - s * v;
    x[i + 1] = s * u + c * v;
  }
  return x;
}

struct Case {
  int64_t batch, heads, head_dim;
  std::vector<int64_t> tokens;  // per part
  int64_t rope_batch;           // 0: no rotation
};

// inputs: per part qkv, q_scale, k_scale; then the table.
std::vector<Host> reference(const Case& c, const std::vector<Host>& in) {
  const int64_t h = c.heads, d = c.head_dim;
  int64_t joined = 0, first = 0;
  for (int64_t n : c.tokens) joined += n;
  std::vector<Host> out(
      3, Host{{c.batch, h, joined, d}, std::vector<double>(z(c.batch * h * joined * d)), true});
  for (size_t p = 0; p < c.tokens.size(); ++p) {
    const int64_t n = c.tokens[p];
    for (int64_t row = 0; row < c.batch * n * h; ++row) {
      const int64_t b = row / (n * h), i = row / h % n, head = row % h;
      for (int64_t part = 0; part < 3; ++part) {
        const size_t from = z(((b * n + i) * 3 + part) * h * d + head * d);
        const size_t to = z(((b * h + head) * joined + first + i) * d);
        double squares = 0;
        for (size_t e = 0; e < z(d); ++e) squares += in[3 * p][from + e] * in[3 * p][from + e];
        const double rstd = 1 / std::sqrt(squares / static_cast<double>(d) + static_cast<double>(kEps));
        for (size_t e = 0; e < z(d); ++e) {
          const double x = in[3 * p][from + e];
          out[z(part)][to + e] = part == 2 ? x : x * rstd * in[3 * p + 1 + z(part)][e];
        }
      }
    }
    first += n;
  }
  const Host* table = c.rope_batch ? &in.back() : nullptr;
  out[0] = rotated(out[0], table);
  out[1] = rotated(out[1], table);
  return out;
}

void check(const Case& c) {
  std::vector<Host> inputs;
  int64_t joined = 0;
  for (size_t p = 0; p < c.tokens.size(); ++p) {
    inputs.push_back(random({c.batch, c.tokens[p], 3 * c.heads * c.head_dim}, 3 * p));
    inputs.push_back(random({c.head_dim}, 3 * p + 1));
    inputs.push_back(random({c.head_dim}, 3 * p + 2));
    joined += c.tokens[p];
  }
  if (c.rope_batch) inputs.push_back(rope_table(c.rope_batch, joined, c.head_dim));
  check_op(
      "qk_norm_rope B" + std::to_string(c.batch) + " D" + std::to_string(c.head_dim), inputs,
      [&](const auto& t) {
        std::vector<op::QkvPart> parts;
        for (size_t p = 0; p < c.tokens.size(); ++p) parts.push_back({t[3 * p], t[3 * p + 1], t[3 * p + 2]});
        const op::Qkv r = op::qk_norm_rope(parts, c.rope_batch ? t.back() : Tensor(), c.heads, kEps);
        return std::vector{r.q, r.k, r.v};
      },
      [&](const auto& h) { return reference(c, h); });
}

class QkNormRope : public ::testing::TestWithParam<const char*> {
 protected:
  VariantOverride variant_{"qk_norm_rope", GetParam()};
};

TEST_P(QkNormRope, JoinsPartsOfAwkwardLengths) {
  check({1, 2, 32, {5, 12}, 1});
  check({2, 3, 16, {7, 4}, 2});
  check({2, 1, 20, {9}, 1});
  check({1, 5, 24, {3, 2}, 1});
  check({2, 2, 96, {2, 1}, 2});
}

TEST_P(QkNormRope, HeadsOfTwoModFour) {
  check({2, 3, 6, {3, 5}, 1});
  check({1, 1, 2, {1}, 1});
}

TEST_P(QkNormRope, WithoutRotation) {
  check({1, 2, 12, {3, 2}, 0});
}

INSTANTIATE_TEST_SUITE_P(Structures, QkNormRope, ::testing::Values("simd", "gpu"));

TEST(QkNormRopeErrors, RejectsOtherShapes) {
  const Tensor qkv = Tensor::zeros(device(), {1, 4, 48}), scale = Tensor::zeros(device(), {8});
  EXPECT_THROW(op::qk_norm_rope({}, {}, 2), Error);
  EXPECT_THROW(op::qk_norm_rope({{qkv, scale, scale}}, {}, 3), Error);
  EXPECT_THROW(op::qk_norm_rope({{qkv, scale, scale}}, Tensor::zeros(device(), {1, 5, 4, 2}), 2), Error);
}

TEST(Rope, RotatesPairs) {
  for (const Shape& shape : {Shape{2, 3, 5, 16}, Shape{2, 1, 7, 6}, Shape{1, 2, 1, 2}}) {
    for (int64_t batch : {int64_t{1}, shape[0]}) {
      check_op(
          "rope " + shape.str(), {random(shape, 1), rope_table(batch, shape[2], shape[3])},
          [](const auto& t) { return std::vector{op::rope(t[0], t[1])}; },
          [](const auto& h) { return std::vector{rotated(h[0], &h[1])}; });
    }
  }
}

}  // namespace
}  // namespace vkflux::test
