#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

size_t source(const Shape& shape, const Shape& from, int64_t flat) {
  size_t index = 0, step = 1;
  for (int i = 1; i <= shape.rank(); ++i) {
    const int64_t c = flat % shape[-i];
    flat /= shape[-i];
    if (i > from.rank()) continue;
    if (from[-i] != 1) index += static_cast<size_t>(c) * step;
    step *= static_cast<size_t>(from[-i]);
  }
  return index;
}

Host host_binary(const Host& a, const Host& b, const std::function<double(double, double)>& f) {
  Host y{a.shape.rank() >= b.shape.rank() ? a.shape : b.shape, {}, true};
  for (int i = 1; i <= std::min(a.shape.rank(), b.shape.rank()); ++i)
    y.shape[-i] = a.shape[-i] == 1 ? b.shape[-i] : a.shape[-i];
  for (int64_t i = 0; i < y.shape.numel(); ++i)
    y.data.push_back(f(a[source(y.shape, a.shape, i)], b[source(y.shape, b.shape, i)]));
  return y;
}

using Fn = Tensor (*)(const Tensor&, const Tensor&);
struct Kind {
  const char* name;
  Fn device;
  std::function<double(double, double)> host;
};
const std::vector<Kind>& kinds() {
  static const std::vector<Kind> list = {{"add", op::add, [](double a, double b) { return a + b; }},
                                         {"sub", op::sub, [](double a, double b) { return a - b; }},
                                         {"mul", op::mul, [](double a, double b) { return a * b; }},
                                         {"div", op::div, [](double a, double b) { return a / b; }}};
  return list;
}

void check_kind(const Kind& k, const Shape& a, const Shape& b) {
  Host x = random(a, 1), y = random(b, 2, 0.3);
  for (double& v : y.data) v = static_cast<double>(static_cast<float>(v + (v < 0 ? -1.5 : 1.5)));
  check_op(
      std::string(k.name) + " " + a.str() + " " + b.str(), {x, y},
      [&](const auto& in) { return std::vector<Tensor>{k.device(in[0], in[1])}; },
      [&](const auto& in) { return std::vector<Host>{host_binary(in[0], in[1], k.host)}; });
}

TEST(Binary, EqualShapes) {
  for (const Kind& k : kinds()) {
    for (const Shape& s : {Shape{}, Shape{1}, Shape{7}, Shape{3, 5}, Shape{0, 4}, Shape{2, 3, 2, 2, 1, 3}})
      check_kind(k, s, s);
  }
}

TEST(Binary, Broadcasting) {
  for (const Kind& k : kinds()) {
    check_kind(k, Shape{3, 8}, Shape{8});
    check_kind(k, Shape{5, 216}, Shape{5, 216});
    check_kind(k, Shape{3, 5}, Shape{5});
    check_kind(k, Shape{}, Shape{3, 5});
    check_kind(k, Shape{2, 3, 4}, Shape{2, 1, 4});
  }
  check_kind(kinds()[0], Shape{3, 8}, Shape{3, 1});
  check_kind(kinds()[2], Shape{3, 7}, Shape{3, 1});
  check_kind(kinds()[0], Shape{4, 1}, Shape{1, 6});
  check_kind(kinds()[2], Shape{5, 1}, Shape{1, 8});
  check_kind(kinds()[2], Shape{1, 3, 1, 2}, Shape{2, 1, 4, 2});
  check_kind(kinds()[0], Shape{2, 1, 3, 1, 2, 1}, Shape{1, 3, 1, 2, 1, 4});
  check_kind(kinds()[0], Shape{0, 1}, Shape{1, 5});
}

TEST(Binary, ShapesThatDoNotFitAreRefused) {
  const Tensor a = Tensor::zeros(device(), Shape{2, 3}), b = Tensor::zeros(device(), Shape{2, 4});
  EXPECT_THROW(op::add(a, b), Error);
  EXPECT_THROW(op::mul(a, Tensor::zeros(device(), Shape{2}, DType::i32)), Error);
}

TEST(Binary, ReadsStridedViewsDirectly) {
  const Tensor x = upload(random(Shape{6, 10}, 3));
  const std::vector<float> v = x.to_host();
  const Tensor columns = x.with_strides(Shape{10, 6}, Shape{1, 10});
  const std::vector<float> sum = op::add(columns, columns.slice(0, 3, 1)).to_host();
  for (size_t i = 0; i < 10; ++i) {
    for (size_t j = 0; j < 6; ++j) EXPECT_EQ(sum[i * 6 + j], v[j * 10 + i] + v[j * 10 + 3]);
  }
  const Tensor part = x.slice(1, 3, 4);
  const std::vector<float> diff = op::sub(part, x.slice(1, 4, 4)).to_host();
  for (size_t i = 0; i < 6; ++i) {
    for (size_t j = 0; j < 4; ++j) EXPECT_EQ(diff[i * 4 + j], v[i * 10 + 3 + j] - v[i * 10 + 4 + j]);
  }
}

TEST(Binary, ATensorWithItself) {
  check_op(
      "x * x", {random(Shape{5}, 4)},
      [](const auto& in) { return std::vector<Tensor>{op::mul(in[0], in[0])}; },
      [](const auto& in) {
        return std::vector<Host>{host_binary(in[0], in[0], [](double a, double b) { return a * b; })};
      });
}

TEST(Binary, Affine) {
  for (const Shape& s : {Shape{}, Shape{5}, Shape{0}, Shape{3, 7}}) {
    check_op(
        "affine", {random(s, 5)},
        [](const auto& in) { return std::vector<Tensor>{op::affine(in[0], -1.5f, 0.25f)}; },
        [](const auto& in) {
          Host y = in[0];
          for (double& v : y.data) v = -1.5 * v + 0.25;
          return std::vector<Host>{y};
        });
  }
}

TEST(Accumulate, LeavesNeighboursAlone) {
  for (const int64_t count : {7, 12, 520}) {
    for (const int64_t start : {0, 1, 64}) {
      const Tensor whole = Tensor::full(device(), Shape{600}, 3);
      op::accumulate(whole.slice(0, start, count), Tensor::full(device(), Shape{count}, 1));
      const std::vector<float> got = whole.to_host();
      for (int64_t i = 0; i < 600; ++i)
        EXPECT_EQ(got[static_cast<size_t>(i)], i >= start && i < start + count ? 4 : 3) << i;
    }
  }
}

TEST(Accumulate, StridedDestinations) {
  for (const int64_t width : {4, 3}) {
    const Tensor whole = Tensor::zeros(device(), Shape{5, 12});
    const Host x = random(Shape{5, width}, 6);
    const Tensor target = whole.slice(1, 4, width);
    op::accumulate(target, upload(x));
    op::accumulate(target, upload(x));
    const std::vector<float> got = whole.to_host();
    for (size_t r = 0; r < 5; ++r) {
      for (size_t c = 0; c < 12; ++c) {
        const bool inside = c >= 4 && c < 4 + static_cast<size_t>(width);
        EXPECT_EQ(got[r * 12 + c],
                  inside ? static_cast<float>(2 * x[r * static_cast<size_t>(width) + c - 4]) : 0);
      }
    }
  }
}

TEST(Accumulate, PaddingDoesNotLeakIntoTheGap) {
  // Bytes behind the source's end are unspecified; those behind the destination's must stay what they were.
  const Tensor junk = Tensor::full(device(), Shape{64}, std::nanf(""));
  const Tensor arena = Tensor::zeros(device(), Shape{128});
  op::accumulate(arena.slice(0, 0, 5), junk.slice(0, 0, 5));
  const std::vector<float> got = arena.to_host();
  EXPECT_TRUE(std::isnan(got[4]));
  EXPECT_EQ(got[5], 0);
}

}  // namespace
}  // namespace vkflux::test
