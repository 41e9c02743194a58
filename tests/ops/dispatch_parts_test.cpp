// Dispatches that would hold a device for long are made in parts, with the same bits.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>

#include "autograd/ops.h"
#include "autograd/ops/attention_forms.h"
#include "autograd/run.h"
#include "autograd/tape.h"
#include "tests/harness/gpu.h"
#include "tests/harness/op_check.h"
#include "vk/spirv.h"

namespace vkflux::test {
namespace {

using Results = std::vector<std::vector<float>>;
using Where = VariantOverride::Where;

TEST(DispatchParts, CoverEveryWorkgroupOnce) {
  for (const Groups& g : {Groups{1, 1, 1}, Groups{7, 1, 1}, Groups{5, 3, 1}, Groups{4, 5, 6}, Groups{1, 1, 9},
                          Groups{1, 12, 2}}) {
    for (const uint64_t parts : {1u, 2u, 3u, 7u, 11u, 1000u}) {
      std::vector<int> seen(g.count());
      uint64_t made = 0, largest = 0;
      each_part(g, parts, [&](Groups first, Groups count) {
        ++made;
        largest = std::max(largest, count.count());
        for (uint32_t z = first.z; z < first.z + count.z; ++z) {
          for (uint32_t y = first.y; y < first.y + count.y; ++y) {
            for (uint32_t x = first.x; x < first.x + count.x; ++x) ++seen.at((z * g.y + y) * g.x + x);
          }
        }
      });
      EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
      EXPECT_GE(made, std::min(parts, g.count()));
      EXPECT_LE(made, g.count());
      EXPECT_EQ(made == 1, parts == 1 || g.count() == 1);
      EXPECT_EQ(largest == 1, made == g.count());
    }
  }
}

// Attention over a picture of 2048 x 2048 and its text, as the flash form launches it.
TEST(DispatchParts, AttentionOfLargePicturesIsBounded) {
  // Its own device: what these dispatches are said to cost isn't what they take.
  const std::unique_ptr<Device> own = Device::create();
  Device& d = *own;
  AttentionProblem p;
  p.batch = 1, p.heads = 24, p.nq = p.nk = 16896, p.d = 128;
  for (const double products : {2.0, 3.0, 4.0}) {  // forward, dq, dk and dv
    const Cost cost = attention_cost(p, products, 3, 4);
    EXPECT_GT(cost.flops, 3e12);
    const StreamCounters before = d.stream().counters();
    const Tensor x = Tensor::full(d, Shape{64}, 1), y = Tensor::empty(d, Shape{64});
    run(d, spec::Affine{.LOCAL = 64}, {x, y}, args::AffineArgs{64, 3, 1}, groups_1d(24 * 264), cost);
    d.stream().sync();
    const StreamCounters& after = d.stream().counters();
    const double parts = static_cast<double>(after.dispatches - before.dispatches);
    EXPECT_LE(cost.flops / parts, d.stream().dispatch_limit().flops * 1.1);
    EXPECT_LE(d.stream().dispatch_limit().flops, 5e10);
    EXPECT_EQ(y.to_host(), std::vector<float>(64, 4.0f));
  }
}

// Only kernels whose work is bounded by memory may count their workgroups.
TEST(DispatchParts, KernelsThatCannotBeCut) {
  std::set<std::string> found;
  for (const SpirvModule& m : spirv_modules()) {
    if (m.variant == std::string_view("wide")) continue;
    if (reflect(m.shader, m.words, m.count).counts_groups) found.emplace(m.shader);
  }
  EXPECT_EQ(found, (std::set<std::string>{"column_sums", "group_norm"}));
}

Results with_gradients(const std::vector<Host>& in,
                       const std::function<Tensor(const std::vector<Tensor>&)>& f) {
  Tape tape;
  std::vector<Tensor> t;
  for (const Host& h : in) tape.watch(t.emplace_back(upload(h)));
  Tensor y;
  {
    const auto scope = tape.record();
    y = f(t);
  }
  const Grads g = tape.backward(y, upload(random(y.shape(), 9)));
  Results out{y.to_host()};
  for (const Tensor& x : t) out.push_back(g.of(x).to_host());
  return out;
}

// f with and without cutting: other dispatches, the same bits.
void check_cut(const std::string& name, const std::function<Results()>& f) {
  Stream& stream = device().stream();
  const Cost limit = stream.dispatch_limit();
  const auto count = [&](Cost most, Results& out) {
    stream.set_dispatch_limit(most);
    const uint64_t before = stream.counters().dispatches;
    out = f();
    stream.set_dispatch_limit(limit);
    return stream.counters().dispatches - before;
  };
  Results whole, cut;
  const uint64_t few = count(limit, whole), many = count({2e4, 1e4}, cut);
  EXPECT_GT(many, 2 * few) << name;
  EXPECT_EQ(whole, cut) << name;
}

TEST(DispatchParts, AttentionHasTheSameBits) {
  for (const std::string form : {"composed", "flash", "panels", "coop"}) {
    if (form == "coop" && !device().kernels().available("flash_attention_coop", "f16")) continue;
    if (form == "panels" && !device().caps().simd()) continue;
    const VariantOverride force("attention", form);
    op::AttentionOptions o;
    o.f16 = form == "coop";
    o.causal = form == "flash";
    check_cut(form, [&] {
      return with_gradients(
          {random({1, 2, 150, 32}, 1), random({1, 2, 170, 32}, 2), random({1, 2, 170, 32}, 3)},
          [&](const auto& t) { return op::attention(t[0], t[1], t[2], o); });
    });
  }
}

TEST(DispatchParts, ProductsHaveTheSameBits) {
  for (const char* form : {"simd", "gpu", "panels", "matvec", "coop"}) {
    const VariantOverride force("matmul", form, Where::it_fits);
    const Tensor w16 = op::cast(upload(random({100, 64}, 3)), DType::f16);
    check_cut(form, [&] {
      return with_gradients(
          {random({130, 64}, 1), random({100, 64}, 2), random({100}, 4)}, [&](const auto& t) {
            return op::add(op::linear(t[0], t[1], t[2], op::Activation::silu), op::linear(t[0], w16));
          });
    });
  }
}

TEST(DispatchParts, ConvolutionsHaveTheSameBits) {
  for (const char* form : {"simd", "gpu"}) {
    const VariantOverride force("conv2d", form);
    check_cut(form, [&] {
      return with_gradients(
          {random({2, 19, 23, 8}, 1), random({24, 8, 3, 3}, 2), random({24}, 3), random({24}, 4)},
          [&](const auto& t) {
            return op::group_norm(op::conv2d(t[0], t[1], t[2]), t[3], t[2], 4, 1e-6f, true);
          });
    });
  }
}

TEST(DispatchParts, RowsAndArraysHaveTheSameBits) {
  for (const char* form : {"simd", "gpu"}) {
    const VariantOverride force("*", form, Where::it_fits);
    check_cut(form, [&] {
      return with_gradients({random({64, 96}, 1), random({96}, 2), random({96}, 3)}, [&](const auto& t) {
        const Tensor x = op::layer_norm(t[0], t[1], t[2], 1e-6f);
        return op::add(op::softmax(op::mul(x, x)), op::sum(op::unary(x, op::Unary::tanh), {0}, true));
      });
    });
  }
}

// Cut in the middle of a recording, whose pieces are no longer than a slice.
TEST(DispatchParts, RecordedWorkIsCutToo) {
  Device& d = device();
  if (!Recording::supported(d)) return;
  const Tensor x = upload(random({256, 256}, 1)), y = Tensor::empty(d, {256, 256});
  const std::vector<float> want = op::matmul(x, x).to_host();
  const Cost limit = d.stream().dispatch_limit();
  d.stream().set_dispatch_limit({1e4, 1e9});
  {
    const uint32_t region = d.pool().open_region();
    Recording recording(d);
    {
      const RegionScope memory(d.pool(), region);
      const RecordingScope scope(d.stream(), recording);
      d.stream().copy(y.range(), op::matmul(x, x).range());
    }
    EXPECT_GT(recording.dispatches(), 8u);
    y.fill_zero();
    d.stream().replay(recording);
    EXPECT_EQ(y.to_host(), want);
    d.pool().close_region(region);
  }
  d.stream().set_dispatch_limit(limit);
}

}  // namespace
}  // namespace vkflux::test
