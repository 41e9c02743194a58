#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "tests/harness/op_check.h"

namespace vkflux::test {
namespace {

HostFn reference(int groups, double eps, bool silu) {
  return [=](const std::vector<Host>& in) {
    const Host &x = in[0], &w = in[1], &b = in[2];
    Host y = x;
    const auto batch = static_cast<size_t>(x.shape[0]), pixels = static_cast<size_t>(x.shape[1] * x.shape[2]);
    const auto channels = static_cast<size_t>(x.shape[3]), width = channels / static_cast<size_t>(groups);
    for (size_t n = 0; n < batch; ++n) {
      for (size_t g = 0; g < static_cast<size_t>(groups); ++g) {
        double mean = 0, var = 0;
        const double count = static_cast<double>(pixels * width);
        const auto each = [&](auto fn) {
          for (size_t p = 0; p < pixels; ++p) {
            for (size_t c = g * width; c < (g + 1) * width; ++c) fn((n * pixels + p) * channels + c, c);
          }
        };
        each([&](size_t i, size_t) { mean += x[i] / count; });
        each([&](size_t i, size_t) { var += (x[i] - mean) * (x[i] - mean) / count; });
        each([&](size_t i, size_t c) {
          const double z = (x[i] - mean) / std::sqrt(var + eps) * w[c] + b[c];
          y[i] = silu ? z / (1 + std::exp(-z)) : z;
        });
      }
    }
    return std::vector<Host>{y};
  };
}

void check(const Shape& shape, int groups, bool silu, double offset = 0) {
  Host x = random(shape, 1);
  for (double& v : x.data) v = static_cast<double>(static_cast<float>(v + offset));
  const Shape channels{shape[3]};
  const float eps = 1e-5f;
  check_op(
      "group_norm " + shape.str(), {x, random(channels, 2), random(channels, 3)},
      [&](const auto& in) {
        return std::vector<Tensor>{op::group_norm(in[0], in[1], in[2], groups, eps, silu)};
      },
      reference(groups, static_cast<double>(eps), silu));
}

TEST(GroupNormTest, MatchesReference) {
  check({1, 4, 4, 6}, 3, false);
  check({2, 2, 3, 64}, 32, false);
  check({1, 3, 5, 32}, 32, true);
  check({2, 5, 7, 16}, 8, true);
  check({1, 1, 2, 5}, 1, true);
  check({2, 20, 21, 24}, 3, true);
  check({1, 13, 11, 8}, 2, true);  // more pixels than one chunk
}

TEST(GroupNormTest, SurvivesALargeMean) {
  check({1, 8, 9, 8}, 2, false, 300);
}

TEST(UpsampleNearest2Test, MatchesReference) {
  for (const Shape& shape : {Shape{1, 1, 1, 1}, Shape{2, 3, 5, 3}, Shape{1, 2, 3, 8}}) {
    check_op(
        "upsample_nearest2 " + shape.str(), {random(shape, 1)},
        [](const auto& in) { return std::vector<Tensor>{op::upsample_nearest2(in[0])}; },
        [](const auto& in) {
          const Shape& s = in[0].shape;
          Host y{{s[0], 2 * s[1], 2 * s[2], s[3]}, {}, true};
          for (int64_t b = 0; b < s[0]; ++b) {
            for (int64_t h = 0; h < 2 * s[1]; ++h) {
              for (int64_t w = 0; w < 2 * s[2]; ++w) {
                for (int64_t c = 0; c < s[3]; ++c) {
                  y.data.push_back(
                      in[0][static_cast<size_t>(((b * s[1] + h / 2) * s[2] + w / 2) * s[3] + c)]);
                }
              }
            }
          }
          return std::vector<Host>{y};
        });
  }
}

}  // namespace
}  // namespace vkflux::test
