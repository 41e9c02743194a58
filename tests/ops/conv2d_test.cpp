#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

struct Case {
  Shape x;  // [B, H, W, C]
  int64_t out_c, kernel;
  op::ConvOptions options = {};
  bool bias = true;
};

// inputs: x[B, H, W, C], weight[O, C, kh, kw], maybe bias[O]
std::vector<Host> reference(const std::vector<Host>& in, const op::ConvOptions& o) {
  const Host &x = in[0], &w = in[1];
  const int64_t h = x.shape[1], wd = x.shape[2], c = x.shape[3], kh = w.shape[2], kw = w.shape[3];
  const Shape out{x.shape[0], (h + o.pad_top + o.pad_bottom - kh) / o.stride + 1,
                  (wd + o.pad_left + o.pad_right - kw) / o.stride + 1, w.shape[0]};
  Host y{out, std::vector<double>(static_cast<size_t>(out.numel())), true};
  size_t at = 0;
  for (int64_t b = 0; b < out[0]; ++b)
    for (int64_t oy = 0; oy < out[1]; ++oy)
      for (int64_t ox = 0; ox < out[2]; ++ox)
        for (int64_t oc = 0; oc < out[3]; ++oc, ++at) {
          double sum = in.size() > 2 ? in[2][static_cast<size_t>(oc)] : 0;
          for (int64_t ky = 0; ky < kh; ++ky)
            for (int64_t kx = 0; kx < kw; ++kx) {
              const int64_t sy = oy * o.stride + ky - o.pad_top, sx = ox * o.stride + kx - o.pad_left;
              if (sy < 0 || sx < 0 || sy >= h || sx >= wd) continue;
              for (int64_t ic = 0; ic < c; ++ic) {
                sum += x[static_cast<size_t>(((b * h + sy) * wd + sx) * c + ic)] *
                       w[static_cast<size_t>(((oc * c + ic) * kh + ky) * kw + kx)];
              }
            }
          y[at] = sum;
        }
  return {y};
}

Tensor convolve(const std::vector<Tensor>& t, const op::ConvOptions& o) {
  return op::conv2d(t[0], t[1], t.size() > 2 ? t[2] : Tensor(), o);
}

void check(const Case& k) {
  const double fan_in = static_cast<double>(k.x[3] * k.kernel * k.kernel);
  std::vector<Host> in{random(k.x, 1),
                       random({k.out_c, k.x[3], k.kernel, k.kernel}, 2, 1 / std::sqrt(fan_in))};
  if (k.bias) in.push_back(random({k.out_c}, 3));
  for (const char* variant : {"simd", "gpu"}) {
    const VariantOverride force("conv2d", variant);
    CheckOptions options;
    options.max_probes = 12;
    check_op(
        fmt::format("conv2d {} {} -> {}, kernel {}, stride {}", variant, k.x.str(), k.out_c, k.kernel,
                    k.options.stride),
        in, [&](const std::vector<Tensor>& t) -> std::vector<Tensor> { return {convolve(t, k.options)}; },
        [&](const std::vector<Host>& h) { return reference(h, k.options); }, options);
  }
}

constexpr op::ConvOptions kNoPad{1, 0, 0, 0, 0};
constexpr op::ConvOptions kDown{2, 0, 0, 1, 1};  // the autoencoders' downsampling

TEST(Conv2d, AwkwardShapes) {
  check({{1, 1, 1, 1}, 1, 3});
  check({{1, 1, 1, 1}, 3, 1, kNoPad, false});
  check({{2, 5, 7, 3}, 16, 3});
  check({{2, 7, 3, 5}, 7, 3});
  check({{1, 11, 13, 16}, 3, 3});
  check({{1, 6, 5, 20}, 40, 3});
  check({{2, 9, 5, 12}, 29, 1, kNoPad});
  check({{1, 8, 8, 8}, 8, 5, {1, 2, 2, 2, 2}});
}

TEST(Conv2d, StridesAndPadding) {
  check({{2, 6, 6, 4}, 4, 3, kDown});
  check({{1, 9, 12, 8}, 12, 3, kDown});
  check({{1, 7, 7, 3}, 5, 3, {2, 1, 1, 1, 1}});
  check({{1, 10, 8, 4}, 4, 3, {3, 0, 2, 1, 0}, false});
  check({{1, 6, 6, 4}, 4, 2, {2, 0, 0, 0, 0}});
  check({{1, 5, 5, 4}, 8, 1, {2, 0, 0, 0, 0}});
  check({{1, 3, 3, 4}, 4, 1, {1, 1, 2, 0, 1}});  // more padding than the kernel reaches over
}

TEST(Conv2d, WeightGradientInParts) {
  check({{2, 24, 40, 4}, 6, 1, kNoPad});
}

TEST(Conv2d, WeightGradientByProducts) {
  for (const char* matmul : {"panels", "simd"}) {
    // The structure for GPUs, which check() takes too, has no products.
    const VariantOverride products("conv2d_weight", "products", VariantOverride::Where::it_fits),
        force("matmul", matmul, VariantOverride::Where::it_fits);
    check({{3, 5, 7, 8}, 16, 3});
    check({{2, 6, 5, 4}, 12, 1, kNoPad, false});
    check({{1, 9, 7, 12}, 8, 5, {1, 2, 2, 2, 2}});
    check({{1, 3, 3, 4}, 4, 2, {1, 1, 2, 0, 1}});
    check({{2, 6, 7, 4}, 8, 3, kDown});
    check({{1, 7, 10, 8}, 4, 3, {3, 0, 2, 1, 0}, false});
    check({{1, 2, 5, 4}, 4, 1, {3, 1, 1, 0, 0}});  // some pixels meet no tap, some taps no pixel
  }
}

TEST(Conv2d, StructuresAgreeOnLargerLayers) {
  // The last one has more rows than one chunk of products takes.
  for (const Case& k :
       {Case{{1, 12, 12, 32}, 160, 3}, Case{{2, 10, 12, 64}, 24, 3, kDown}, Case{{1, 230, 43, 8}, 8, 3}}) {
    const std::vector<Host> in{random(k.x, 1), random({k.out_c, k.x[3], 3, 3}, 2, 0.1), random({k.out_c}, 3)};
    std::vector<std::vector<float>> results[2];
    for (int v = 0; v < 2; ++v) {
      const VariantOverride force("conv2d", v ? "gpu" : "simd"),
          products("conv2d_weight", v ? "direct" : "products");
      Tape tape;
      std::vector<Tensor> t;
      for (const Host& h : in) tape.watch(t.emplace_back(upload(h)));
      Tensor y;
      {
        const auto scope = tape.record();
        y = convolve(t, k.options);
      }
      results[v].push_back(y.to_host());
      Grads g = tape.backward(y, upload(random(y.shape(), 4)));
      for (const Tensor& x : t) results[v].push_back(g.of(x).to_host());
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
      const std::vector<double> want(results[1][i].begin(), results[1][i].end());
      EXPECT_LE(error_of(results[0][i], want), 1e-4) << k.x.str() << " result " << i;
    }
  }
}

TEST(Conv2d, SixteenBitWeights) {
  const Host x = random({1, 4, 5, 6}, 1), w = random({9, 6, 3, 3}, 2, 0.2), b = random({9}, 3);
  const std::vector<float> wf(w.data.begin(), w.data.end()), bf(b.data.begin(), b.data.end());
  for (const char* variant : {"simd", "gpu"}) {
    const VariantOverride force("conv2d", variant);
    for (DType type : {DType::f16, DType::bf16}) {
      const Tensor wt = Tensor::from(device(), wf, w.shape, type),
                   bt = Tensor::from(device(), bf, b.shape, type);
      Host rw = w, rb = b;
      const std::vector<float> wr = wt.to_host(), br = bt.to_host();
      rw.data.assign(wr.begin(), wr.end());
      rb.data.assign(br.begin(), br.end());
      EXPECT_LE(error_of(op::conv2d(upload(x), wt, bt).to_host(), reference({x, rw, rb}, {})[0].data), 1e-5)
          << variant << " " << name(type);
    }
  }
}

TEST(Conv2d, EmptyBatch) {
  const Tensor x = Tensor::empty(device(), {0, 4, 4, 8}), w = upload(random({8, 8, 3, 3}, 1));
  Tape tape;
  tape.watch(w);
  Tensor y;
  {
    const auto scope = tape.record();
    y = op::conv2d(x, w, {});
  }
  EXPECT_EQ(y.shape(), (Shape{0, 4, 4, 8}));
  Grads g = tape.backward(y);
  for (float v : g.of(w).to_host()) EXPECT_EQ(v, 0);
}

TEST(Conv2d, RejectsWrongShapes) {
  const Tensor x = upload(random({1, 4, 4, 3}, 1)), w = upload(random({2, 3, 3, 3}, 2));
  EXPECT_THROW(op::conv2d(upload(random({4, 4, 3}, 1)), w, {}), Error);
  EXPECT_THROW(op::conv2d(x, upload(random({2, 4, 3, 3}, 2)), {}), Error);
  EXPECT_THROW(op::conv2d(x, w, upload(random({3}, 3))), Error);
  EXPECT_THROW(op::conv2d(x, w, {}, {0, 1, 1, 1, 1}), Error);
  EXPECT_THROW(op::conv2d(x, upload(random({2, 3, 7, 7}, 2)), {}), Error);
}

}  // namespace
}  // namespace vkflux::test
