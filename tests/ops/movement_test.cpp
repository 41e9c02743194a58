#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "autograd/ops.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

// Every index of `shape`, outermost first.
template <class F>
void each_index(const Shape& shape, F f) {
  std::vector<int64_t> at(static_cast<size_t>(shape.rank()), 0);
  for (int64_t n = shape.numel(); n > 0; --n) {
    f(at);
    for (int d = shape.rank() - 1; d >= 0; --d) {
      if (++at[static_cast<size_t>(d)] < shape[d]) break;
      at[static_cast<size_t>(d)] = 0;
    }
  }
}

size_t flat(const Shape& shape, const std::vector<int64_t>& at) {
  size_t i = 0;
  for (int d = 0; d < shape.rank(); ++d)
    i = i * static_cast<size_t>(shape[d]) + static_cast<size_t>(at[static_cast<size_t>(d)]);
  return i;
}

Host host_permute(const Host& x, const std::vector<int>& dims) {
  Host y{{}, {}, true};
  for (int d : dims) y.shape.push_back(x.shape[d]);
  each_index(y.shape, [&](const std::vector<int64_t>& at) {
    std::vector<int64_t> from(at.size());
    for (size_t i = 0; i < at.size(); ++i) from[static_cast<size_t>(dims[i])] = at[i];
    y.data.push_back(x[flat(x.shape, from)]);
  });
  return y;
}

Host host_narrow(const Host& x, int dim, int64_t start, int64_t length) {
  Host y{x.shape, {}, true};
  y.shape[dim] = length;
  each_index(y.shape, [&](std::vector<int64_t> at) {
    at[static_cast<size_t>(dim)] += start;
    y.data.push_back(x[flat(x.shape, at)]);
  });
  return y;
}

struct PermuteCase {
  Shape shape;
  std::vector<int> dims;
};

TEST(Movement, PermuteOfEveryRank) {
  const std::vector<PermuteCase> cases = {
      {{}, {}},
      {{7}, {0}},
      {{0, 3}, {1, 0}},
      {{5, 3}, {1, 0}},
      {{8, 12}, {1, 0}},
      {{2, 3, 4}, {1, 0, 2}},
      {{2, 5, 8}, {1, 2, 0}},
      {{2, 6, 3, 8}, {0, 2, 1, 3}},
      {{2, 6, 3, 5}, {0, 2, 1, 3}},
      {{2, 3, 4, 5}, {3, 1, 0, 2}},
      {{2, 3, 2, 4, 3}, {4, 0, 3, 1, 2}},
      {{2, 3, 2, 3, 2, 3}, {5, 3, 1, 4, 2, 0}},
      {{3, 1, 4, 1, 4, 8}, {0, 4, 1, 2, 3, 5}},
  };
  for (const PermuteCase& c : cases) {
    check_op(
        "permute " + c.shape.str(), {random(c.shape, 1)},
        [&](const auto& in) { return std::vector<Tensor>{op::permute(in[0], c.dims)}; },
        [&](const auto& in) { return std::vector<Host>{host_permute(in[0], c.dims)}; });
  }
}

TEST(Movement, BadOrdersAreRefused) {
  const Tensor x = Tensor::zeros(device(), Shape{2, 3});
  EXPECT_THROW(op::permute(x, {0, 0}), Error);
  EXPECT_THROW(op::permute(x, {0}), Error);
  EXPECT_THROW(op::permute(x, {0, 2}), Error);
  EXPECT_THROW(op::reshape(x, Shape{7}), Error);
  EXPECT_THROW(op::narrow(x, 1, 2, 2), Error);
  EXPECT_THROW(op::expand(x, Shape{2, 4}), Error);
  EXPECT_THROW(op::concat({x, Tensor::zeros(device(), Shape{3, 2})}, 0), Error);
}

TEST(Movement, ManySlicesOfOneTensorShareItsGradient) {
  for (int64_t h : {4, 5, 8}) {
    check_op(
        "narrow", {random(Shape{3, 6 * h}, 2)},
        [&](const auto& in) {
          std::vector<Tensor> out;
          for (int64_t i = 0; i < 6; ++i) out.push_back(op::contiguous(op::narrow(in[0], 1, i * h, h)));
          out.push_back(op::affine(in[0], 2));
          out.push_back(op::contiguous(op::narrow(in[0], -1, 1, 2 * h)));
          return out;
        },
        [&](const auto& in) {
          std::vector<Host> out;
          for (int64_t i = 0; i < 6; ++i) out.push_back(host_narrow(in[0], 1, i * h, h));
          out.push_back(in[0]);
          for (double& v : out.back().data) v *= 2;
          out.push_back(host_narrow(in[0], 1, 1, 2 * h));
          return out;
        });
  }
}

TEST(Movement, NarrowReadsViewsInEveryPosition) {
  for (int dim = 0; dim < 3; ++dim) {
    check_op(
        "narrow", {random(Shape{5, 6, 7}, 3)},
        [&](const auto& in) {
          const Tensor part = op::narrow(in[0], dim, 2, 3);
          return std::vector<Tensor>{op::permute(part, {2, 0, 1}), op::reshape(part, Shape{part.numel()})};
        },
        [&](const auto& in) {
          const Host part = host_narrow(in[0], dim, 2, 3);
          Host all = part;
          all.shape = Shape{part.shape.numel()};
          return std::vector<Host>{host_permute(part, {2, 0, 1}), all};
        });
  }
}

TEST(Movement, Concat) {
  struct Case {
    std::vector<Shape> shapes;
    int dim;
  };
  const std::vector<Case> cases = {
      {{{3}, {5}}, 0},         {{{2, 3}, {2, 4}, {2, 0}}, 1}, {{{2, 3, 4}, {2, 5, 4}}, 1},
      {{{20, 4}, {20, 8}}, 1}, {{{20, 3}, {20, 8}}, -1},      {{{2, 1, 3, 2}, {2, 2, 3, 2}}, 1}};
  for (const Case& c : cases) {
    std::vector<Host> inputs;
    for (size_t i = 0; i < c.shapes.size(); ++i) inputs.push_back(random(c.shapes[i], 10 + i));
    const int dim = c.dim < 0 ? c.dim + c.shapes[0].rank() : c.dim;
    check_op(
        "concat", inputs, [&](const auto& in) { return std::vector<Tensor>{op::concat(in, c.dim)}; },
        [&](const auto& in) {
          Host y{in[0].shape, {}, true};
          y.shape[dim] = 0;
          for (const Host& p : in) y.shape[dim] += p.shape[dim];
          each_index(y.shape, [&](std::vector<int64_t> at) {
            int64_t& i = at[static_cast<size_t>(dim)];
            size_t part = 0;
            while (i >= in[part].shape[dim]) i -= in[part++].shape[dim];
            y.data.push_back(in[part][flat(in[part].shape, at)]);
          });
          return std::vector<Host>{y};
        });
  }
}

TEST(Movement, ConcatOfStridedParts) {
  check_op(
      "concat", {random(Shape{20, 12}, 4)},
      [&](const auto& in) {
        return std::vector<Tensor>{op::concat({op::narrow(in[0], 1, 8, 4), op::narrow(in[0], 1, 0, 8)}, 1),
                                   op::concat({op::narrow(in[0], 1, 7, 3), op::narrow(in[0], 1, 0, 2)}, 1)};
      },
      [&](const auto& in) {
        Host a{Shape{20, 12}, {}, true}, b{Shape{20, 5}, {}, true};
        for (size_t r = 0; r < 20; ++r) {
          for (size_t c : {8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7}) a.data.push_back(in[0][12 * r + c]);
          for (size_t c : {7, 8, 9, 0, 1}) b.data.push_back(in[0][12 * r + c]);
        }
        return std::vector<Host>{a, b};
      });
}

TEST(Movement, Expand) {
  const std::vector<std::pair<Shape, Shape>> cases = {
      {{}, {3, 5}}, {{1}, {4}}, {{3, 1}, {3, 8}}, {{8}, {5, 8}}, {{2, 1, 4}, {2, 3, 4}}, {{2, 3}, {2, 3}}};
  for (const auto& [from, to] : cases) {
    check_op(
        "expand " + from.str(), {random(from, 5)},
        [&](const auto& in) { return std::vector<Tensor>{op::expand(in[0], to)}; },
        [&](const auto& in) {
          Host y{to, {}, true};
          each_index(to, [&](const std::vector<int64_t>& at) {
            std::vector<int64_t> a(at.end() - in[0].shape.rank(), at.end());
            for (int d = 0; d < in[0].shape.rank(); ++d)
              if (in[0].shape[d] == 1) a[static_cast<size_t>(d)] = 0;
            y.data.push_back(in[0][flat(in[0].shape, a)]);
          });
          return std::vector<Host>{y};
        });
  }
}

TEST(Movement, PatchesAndHeadsRoundTrip) {
  const Host image = random(Shape{2, 3, 4, 6}, 6);
  check_op(
      "patchify", {image},
      [](const auto& in) {
        const Tensor tokens = op::patchify(in[0], 2);
        return std::vector<Tensor>{tokens, op::unpatchify(tokens, 2, 4, 6)};
      },
      [](const auto& in) {
        Host y{Shape{2, 6, 12}, {}, true};
        each_index(Shape{2, 2, 3, 3, 2, 2}, [&](const std::vector<int64_t>& i) {
          y.data.push_back(in[0][flat(in[0].shape, {i[0], i[3], 2 * i[1] + i[4], 2 * i[2] + i[5]})]);
        });
        return std::vector<Host>{y, in[0]};
      });
  check_op(
      "heads", {random(Shape{2, 5, 12}, 7)},
      [](const auto& in) {
        const Tensor heads = op::split_heads(in[0], 3);
        return std::vector<Tensor>{heads, op::merge_heads(heads)};
      },
      [](const auto& in) {
        Host split = in[0];
        split.shape = Shape{2, 5, 3, 4};
        return std::vector<Host>{host_permute(split, {0, 2, 1, 3}), in[0]};
      });
  const Tensor x = upload(image);
  EXPECT_EQ(op::nhwc_to_nchw(op::nchw_to_nhwc(x)).to_host(), x.to_host());
}

TEST(Movement, CopiesKeepEveryBit) {
  // Integers that are denormals and NaNs when read as floats.
  const std::vector<int32_t> bits = {1, -1, 0x7f800001, INT32_MIN, 0x7fffffff, 42, 3, 7};
  const Tensor x = Tensor::from(device(), std::span<const int32_t>(bits), Shape{2, 4});
  EXPECT_EQ(op::permute(x, {1, 0}).to_host_i32(),
            (std::vector<int32_t>{1, 0x7fffffff, -1, 42, 0x7f800001, 3, INT32_MIN, 7}));
  EXPECT_EQ(op::contiguous(x.slice(1, 1, 2)).to_host_i32(), (std::vector<int32_t>{-1, 0x7f800001, 42, 3}));
}

TEST(Movement, UnalignedViewsOfEveryTypeAreCopied) {
  const std::vector<uint8_t> bytes = {1, 2, 3, 4, 5, 6, 7};
  const Tensor u = Tensor::from(device(), std::span<const uint8_t>(bytes), Shape{7});
  EXPECT_EQ(op::contiguous(u.slice(0, 3, 3)).to_host_bytes(), (std::vector<uint8_t>{4, 5, 6}));
  const std::vector<float> values = {1, 2, 3, 4, 5};
  const Tensor h = Tensor::from(device(), std::span<const float>(values), Shape{5}, DType::bf16);
  EXPECT_EQ(op::contiguous(h.slice(0, 1, 3)).to_host(), (std::vector<float>{2, 3, 4}));
  EXPECT_THROW(
      op::permute(Tensor::from(device(), std::span<const float>(values).first(4), Shape{2, 2}, DType::f16),
                  {1, 0}),
      Error);
}

TEST(Movement, ContiguousReturnsItsArgumentWhenItCan) {
  const Tensor x = Tensor::zeros(device(), Shape{4, 64});
  EXPECT_EQ(op::contiguous(x).id(), x.id());
  EXPECT_NE(op::contiguous(x.slice(1, 0, 32)).id(), x.id());
}

}  // namespace
}  // namespace vkflux::test
