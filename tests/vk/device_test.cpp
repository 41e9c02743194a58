#include "vk/device.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <span>
#include <string>

#include "autograd/ops.h"
#include "autograd/run.h"
#include "tests/harness/gpu.h"
#include "tests/vk/chain.h"
#include "vk/error.h"
#include "vk/stream_limits.h"

namespace vkflux::test {
namespace {

using Floats = std::vector<float>;

Floats counting(size_t n) {
  Floats v(n);
  std::iota(v.begin(), v.end(), 0.0f);
  return v;
}

// Sets an environment variable for the life of the object.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    setenv(name, value, 1);
  }
  ~Environment() {
    if (old_.empty()) {
      unsetenv(name_);
    } else {
      setenv(name_, old_.c_str(), 1);
    }
  }

 private:
  const char* name_;
  std::string old_;
};

TEST(DeviceTest, StatesItsLimits) {
  const Caps& c = device().caps();
  EXPECT_FALSE(c.device_name.empty());
  EXPECT_GE(c.api_version, static_cast<uint32_t>(VK_API_VERSION_1_2));
  EXPECT_GE(c.max_storage_buffer_range, 1u << 27);
  EXPECT_GE(c.buffer_alignment, 16u);
  EXPECT_EQ(c.buffer_alignment & (c.buffer_alignment - 1), 0u);
  EXPECT_GE(c.max_push_constants, 128u);
  EXPECT_GE(c.subgroup_size, 1u);
  EXPECT_GT(c.device_memory, 0u);
}

TEST(DeviceTest, SelectionByIndexNameAndEnvironment) {
  const std::vector<Caps> found = Device::enumerate();
  ASSERT_FALSE(found.empty());
  DeviceOptions o;
  o.validate = false;
  o.select = std::to_string(found.size() - 1);
  EXPECT_EQ(Device::create(o)->caps().device_name, found.back().device_name);
  o.select = found.front().device_name.substr(0, 4);
  EXPECT_EQ(Device::create(o)->caps().device_name.substr(0, 4), o.select);
  {
    const Environment empty("VKFLUX_DEVICE", "");
    o.select = "";
    EXPECT_NO_THROW(Device::create(o));
  }
  for (const std::string& bad :
       {std::string("no such device"), std::string("4294967296"), std::string("18446744073709551616"),
        std::to_string(found.size()), found.front().device_name.substr(1)}) {
    const Environment env("VKFLUX_DEVICE", bad.c_str());
    o.select = "";
    try {
      Device::create(o);
      FAIL() << "a device was made for " << bad;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::no_device);
      EXPECT_NE(std::string(e.what()).find(bad), std::string::npos);
      EXPECT_NE(std::string(e.what()).find(found.front().device_name), std::string::npos) << e.what();
    }
  }
}

TEST(PoolTest, FreedNeighboursMerge) {
  DeviceOptions o;
  o.validate = false;
  const auto d = Device::create(o);
  Pool& pool = d->pool();
  constexpr uint64_t kBlock = 64ull << 20;
  std::vector<BufferPtr> parts;
  for (int i = 0; i < 5; ++i) parts.push_back(pool.allocate(1 << 20, MemoryClass::activations));
  EXPECT_EQ(pool.usage().used, 5u << 20);
  EXPECT_EQ(pool.usage().reserved, kBlock);
  EXPECT_EQ(pool.usage().by_class[static_cast<size_t>(MemoryClass::activations)], 5u << 20);
  for (size_t i = 0; i < 5; ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(parts[i]->offset(), parts[j]->offset());
    EXPECT_EQ(parts[i]->offset() % d->caps().buffer_alignment, 0u);
  }
  for (size_t i : {1u, 3u, 2u, 0u, 4u}) parts[i].reset();
  EXPECT_EQ(pool.usage().used, 0u);
  EXPECT_EQ(pool.usage().peak, 5u << 20);
  const BufferPtr whole = pool.allocate(kBlock, MemoryClass::scratch);
  EXPECT_EQ(pool.usage().reserved, kBlock);
  EXPECT_EQ(whole->offset(), 0u);
}

TEST(PoolTest, AFreedRangeIsUsedAgain) {
  Pool& pool = device().pool();
  BufferPtr a = pool.allocate(4096, MemoryClass::activations);
  const uint64_t offset = a->offset();
  const VkBuffer handle = a->handle();
  a.reset();
  const BufferPtr b = pool.allocate(4096, MemoryClass::activations);
  EXPECT_EQ(b->handle(), handle);
  EXPECT_EQ(b->offset(), offset);
}

TEST(PoolTest, TheBudgetIsKeptAndTheErrorSaysWhoHasIt) {
  DeviceOptions o;
  o.validate = false;
  o.memory_budget = 8 << 20;
  const auto d = Device::create(o);
  const BufferPtr weights = d->pool().allocate(5 << 20, MemoryClass::weights);
  try {
    d->pool().allocate(4 << 20, MemoryClass::activations);
    FAIL() << "more than the budget was given";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::out_of_device_memory);
    const std::string what = e.what();
    for (const char* part : {"activations", "weights", "5.0 MiB", "budget 8.0 MiB"})
      EXPECT_NE(what.find(part), std::string::npos) << what;
  }
  EXPECT_LE(d->pool().usage().reserved, 8u << 20);
  d->pool().set_budget(64 << 20);
  EXPECT_NO_THROW(d->pool().allocate(4 << 20, MemoryClass::activations));
}

TEST(PoolTest, EmptyBlocksMakeRoomUnderABudget) {
  DeviceOptions o;
  o.validate = false;
  o.memory_budget = 8 << 20;
  const auto d = Device::create(o);
  d->pool().allocate(5 << 20, MemoryClass::activations).reset();
  EXPECT_NO_THROW(d->pool().allocate(7 << 20, MemoryClass::activations));
}

TEST(StreamTest, UploadsComeBack) {
  for (const size_t n :
       {size_t{1}, size_t{1000}, (size_t{64} << 18) + 1025}) {  // the last: over one staging chunk
    const Floats v = counting(n);
    const Tensor t = Tensor::from(device(), v, Shape{static_cast<int64_t>(n)});
    EXPECT_TRUE(t.to_host() == v) << n;
  }
}

// In pieces through staging while work is under way, else straight into memory that the host reaches.
TEST(StreamTest, UploadsOfManyPieces) {
  constexpr uint64_t kBytes = (uint64_t{40} << 20) + 12;
  Stream& stream = device().stream();
  const auto word = [](uint64_t at, uint32_t salt) {
    return static_cast<uint32_t>(at / 4 * 2654435761u) ^ salt;
  };
  for (const bool busy : {false, true}) {
    const uint32_t salt = busy ? 77 : 0;
    const BufferPtr buffer = device().pool().allocate(kBytes, MemoryClass::activations);
    stream.sync();
    if (busy) stream.fill({buffer, 0, kBytes}, 5);
    uint64_t next = 0;
    stream.upload({buffer, 0, kBytes}, [&](uint64_t at, std::span<std::byte> piece) {
      EXPECT_EQ(at, next);
      next += piece.size();
      for (uint64_t i = 0; i < piece.size(); i += 4) {
        const uint32_t w = word(at + i, salt);
        std::memcpy(&piece[i], &w, 4);
      }
    });
    EXPECT_EQ(next, kBytes);
    const Download early = stream.begin_download({buffer, 0, kBytes});
    stream.fill({buffer, 0, kBytes}, 9);  // later work doesn't reach what was downloaded
    std::vector<uint32_t> got(kBytes / 4);
    stream.finish(early, std::as_writable_bytes(std::span(got)));
    size_t wrong = 0;
    for (uint64_t i = 0; i < got.size(); ++i) wrong += got[i] != word(4 * i, salt);
    EXPECT_EQ(wrong, 0u);
  }
}

TEST(StreamTest, ReadsWithoutACopyWhereTheHostCan) {
  const Tensor x = Tensor::from(device(), counting(8), Shape{8}), y = op::affine(x, 2);
  const uint64_t copies = device().stream().counters().copies;
  EXPECT_EQ(op::narrow(y, 0, 3, 2).to_host(), (Floats{6, 8}));
  EXPECT_EQ(device().stream().counters().copies - copies, host_reads_memory(device()) ? 0u : 1u);
}

TEST(StreamTest, FillAndCopy) {
  const Tensor a = Tensor::from(device(), counting(8), Shape{8}), b = Tensor::full(device(), Shape{8}, 7);
  BufferRange to = b.range(), from = a.range();
  to.offset += 8;
  to.size = from.size = 12;
  device().stream().copy(to, from);
  EXPECT_EQ(b.to_host(), (Floats{7, 7, 0, 1, 2, 7, 7, 7}));
}

TEST(StreamTest, DependentWorkIsOrdered) {
  check_chain(device());
}

TEST(StreamTest, BarriersOnlyWhereNeeded) {
  Device& d = device();
  const Tensor x = Tensor::full(d, Shape{64}, 1);
  std::vector<Tensor> out;
  for (int i = 0; i < 8; ++i) out.push_back(Tensor::empty(d, x.shape()));
  affine(d, out[0], x, 1, 0);
  const uint64_t before = d.stream().counters().barriers;
  for (size_t i = 1; i < 8; ++i) affine(d, out[i], x, 1, static_cast<float>(i));
  EXPECT_EQ(d.stream().counters().barriers, before);
  affine(d, out[0], out[7], 1, 0);
  EXPECT_EQ(d.stream().counters().barriers, before + 1);
  EXPECT_EQ(out[0].to_host()[63], 8);
}

TEST(StreamTest, ReusedMemoryWaitsForItsLastUse) {
  Device& d = device();
  Tensor sum = Tensor::zeros(d, Shape{1024});
  for (int i = 0; i < 50; ++i) sum = op::add(sum, Tensor::full(d, Shape{1024}, static_cast<float>(i)));
  EXPECT_EQ(sum.to_host(), Floats(1024, 49 * 25));
}

TEST(StreamTest, WorkIsSubmittedByEstimatedTime) {
  Device& d = device();
  d.stream().sync();
  const Tensor a = Tensor::full(d, Shape{64}, 1), b = Tensor::empty(d, Shape{64});
  const uint64_t before = d.stream().counters().submits;
  for (int i = 0; i < 10; ++i) {
    run(d, spec::Affine{.LOCAL = 64}, {a, b}, args::AffineArgs{64, 1, 0}, groups_1d(1), {1e12, 0});
  }
  EXPECT_GE(d.stream().counters().submits, before + 9);
  d.stream().sync();
}

TEST(StreamTest, TheCacheOfViewsIsBounded) {
  Device& d = device();
  d.pool().set_max_views(16);
  const int64_t step = 64;
  const Tensor x = Tensor::from(d, counting(64 * step), Shape{64 * step}), y = Tensor::empty(d, x.shape());
  for (int64_t i = 0; i < 64; ++i) affine(d, y.slice(0, i * step, step), x.slice(0, i * step, step), 2, 0);
  const Floats got = y.to_host();
  d.pool().set_max_views(32768);
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], 2 * static_cast<float>(i));
}

TEST(StreamTest, WrongBindingsAreCaught) {
  Device& d = device();
  const Tensor x = Tensor::zeros(d, Shape{64});
  EXPECT_THROW(run(d, spec::Affine{.LOCAL = 64}, {x}, args::AffineArgs{64, 1, 0}, groups_1d(1), {}), Error);
  EXPECT_THROW(run(d, spec::Affine{.LOCAL = 64}, {x, x}, uint32_t{1}, groups_1d(1), {}), Error);
  EXPECT_THROW(
      run(d, {spec::Affine{.LOCAL = 64}, "none"}, {x, x}, args::AffineArgs{64, 1, 0}, groups_1d(1), {}),
      Error);
  EXPECT_FALSE(d.kernels().available("affine", "none"));
  EXPECT_TRUE(d.kernels().available("affine", "f32"));
}

}  // namespace
}  // namespace vkflux::test
