// Recorded work: replays equal the first run, on fixed memory, with the same barriers.
#include "vk/recording.h"

#include <gtest/gtest.h>

#include <numeric>

#include "autograd/ops.h"
#include "tests/harness/gpu.h"
#include "vk/error.h"

namespace vkflux::test {
namespace {

using Floats = std::vector<float>;

Floats counting(size_t n) {
  Floats v(n);
  std::iota(v.begin(), v.end(), 1.0f);
  return v;
}

// y = (2 x + 1)^2 + x through temporary tensors, which share memory within the region.
void work(const Tensor& x, const Tensor& y) {
  Tensor t = op::affine(x, 2, 1);
  t = op::mul(t, t);
  t = op::add(t, x);
  x.device().stream().copy(y.range(), t.range());
}

Floats expected(const Floats& x) {
  Floats y;
  for (const float v : x) y.push_back((2 * v + 1) * (2 * v + 1) + v);
  return y;
}

class RecordingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!Recording::supported(device())) GTEST_SKIP() << "this driver has no push descriptors";
    region_ = device().pool().open_region();
  }
  void TearDown() override { device().pool().close_region(region_); }

  void record(Recording& r, const Tensor& x, const Tensor& y) {
    const RegionScope memory(device().pool(), region_);
    const RecordingScope scope(device().stream(), r);
    work(x, y);
  }
  uint32_t region_ = 0;
};

TEST_F(RecordingTest, ReplaysReadTheirInputsAnew) {
  Stream& stream = device().stream();
  const size_t n = 1000;
  const Tensor x = Tensor::from(device(), counting(n), Shape{1000}), y = Tensor::empty(device(), x.shape());
  Recording r(device());
  record(r, x, y);
  ASSERT_TRUE(r.replayable());
  EXPECT_EQ(r.dispatches(), 3u);
  EXPECT_EQ(y.to_host(), expected(counting(n)));
  Floats values = counting(n);
  for (int i = 0; i < 5; ++i) {
    for (float& v : values) v += 3;
    x.copy_from_host(values);
    y.fill_zero();
    const StreamCounters before = stream.counters();
    const PoolCounters pool = device().pool().counters();
    stream.replay(r);
    EXPECT_EQ(stream.counters().dispatches - before.dispatches, 3u);
    EXPECT_EQ(stream.counters().replays - before.replays, 1u);
    EXPECT_LE(stream.counters().barriers - before.barriers, 4u);
    EXPECT_EQ(device().pool().counters().allocations, pool.allocations);
    EXPECT_EQ(device().pool().counters().views, pool.views);
    EXPECT_EQ(y.to_host(), expected(values));
  }
}

TEST_F(RecordingTest, TheRegionsMemoryIsItsOwn) {
  const Tensor x = Tensor::from(device(), counting(64), Shape{64}), y = Tensor::empty(device(), x.shape());
  Recording r(device());
  record(r, x, y);
  EXPECT_GT(device().pool().region_usage(region_).reserved, 0u);
  EXPECT_EQ(device().pool().region_usage(region_).used, 0u);
  // Whatever is allocated now must survive the replay.
  std::vector<Tensor> others;
  for (int i = 0; i < 50; ++i) others.push_back(Tensor::full(device(), {64}, static_cast<float>(i)));
  device().stream().replay(r);
  for (int i = 0; i < 50; ++i)
    EXPECT_EQ(others[static_cast<size_t>(i)].to_host(), Floats(64, static_cast<float>(i)));
  EXPECT_EQ(y.to_host(), expected(counting(64)));
}

TEST_F(RecordingTest, LongWorkIsSplitOverSubmits) {
  Stream& stream = device().stream();
  const Tensor x = Tensor::from(device(), counting(64), Shape{64}), y = Tensor::empty(device(), x.shape());
  stream.sync();
  stream.set_time_slice_ms(1e-6);
  Recording r(device());
  record(r, x, y);
  const uint64_t before = stream.counters().submits;
  y.fill_zero();
  stream.replay(r);
  EXPECT_GE(stream.counters().submits - before, 3u);
  stream.set_time_slice_ms(20);
  EXPECT_EQ(y.to_host(), expected(counting(64)));
}

TEST_F(RecordingTest, HostDataIsDoneButNotReplayable) {
  const Tensor x = Tensor::from(device(), counting(8), Shape{8}), y = Tensor::empty(device(), x.shape());
  for (const bool up : {true, false}) {
    Recording r(device());
    Floats seen;
    {
      const RegionScope memory(device().pool(), region_);
      const RecordingScope scope(device().stream(), r);
      if (up) x.copy_from_host(Floats(8, 5));
      work(x, y);
      if (!up) seen = y.to_host();
    }
    EXPECT_FALSE(r.replayable());
    EXPECT_THROW(device().stream().replay(r), Error);
    EXPECT_EQ(y.to_host(), Floats(8, 126));
    if (!up) {
      EXPECT_EQ(seen, Floats(8, 126));
    }
  }
}

TEST_F(RecordingTest, DroppedViewsEndIt) {
  const Tensor x = Tensor::from(device(), counting(64), Shape{64}), y = Tensor::empty(device(), x.shape());
  Recording r(device());
  record(r, x, y);
  ASSERT_TRUE(r.replayable());
  device().pool().set_max_views(1);
  op::affine(x, 1);
  device().pool().set_max_views(32768);
  EXPECT_FALSE(r.replayable());
}

TEST_F(RecordingTest, AFailureInsideLeavesTheStreamUsable) {
  const Tensor x = Tensor::from(device(), counting(8), Shape{8}), y = Tensor::empty(device(), x.shape());
  Recording r(device());
  EXPECT_THROW(
      {
        const RecordingScope scope(device().stream(), r);
        op::affine(x, 2);
        op::add(x, Tensor::zeros(device(), {3}));
      },
      Error);
  EXPECT_FALSE(r.replayable());
  EXPECT_FALSE(device().stream().is_recording());
  work(x, y);
  EXPECT_EQ(y.to_host(), expected(counting(8)));
}

}  // namespace
}  // namespace vkflux::test
