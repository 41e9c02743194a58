#include <gtest/gtest.h>

#include <memory>

#include "tests/harness/gpu.h"

namespace vkflux::test {
namespace {

std::unique_ptr<Device>& slot() {
  static std::unique_ptr<Device> d;
  return d;
}

class Validation : public ::testing::Environment {
 public:
  void TearDown() override {
    if (!slot()) return;
    slot()->stream().sync();
    EXPECT_EQ(slot()->validation_messages(), 0u) << "Vulkan validation reported problems (see the log)";
    slot().reset();
  }
};

}  // namespace

Device& device() {
  if (!slot()) slot() = Device::create();
  return *slot();
}

std::set<std::string> kernels_of(Device& d, const std::function<void()>& f) {
  EXPECT_GT(d.caps().timestamp_period, 0);
  d.stream().sync();
  d.profiler().clear();
  d.profiler().enable(true);
  f();
  d.stream().sync();
  d.profiler().enable(false);
  std::set<std::string> names;
  for (const auto& [name, time] : d.profiler().table()) names.insert(name);
  return names;
}

}  // namespace vkflux::test

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  ::testing::AddGlobalTestEnvironment(new vkflux::test::Validation);
  return RUN_ALL_TESTS();
}
