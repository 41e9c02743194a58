// Specialisation constants, and the pipeline cache on disk: written when asked, whole, and never trusted.
#include "vk/kernel.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "autograd/args.h"
#include "autograd/ops.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "vk/device.h"
#include "vk/spirv.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

// A call that leaves a constant out, misspells one or gives a wider number isn't compiled.
template <class Spec>
concept TakesAll = requires {
  Spec{.LOCAL = 64, .RANK = 2, .MODE = true};
};
template <class Spec>
concept TakesSome = requires {
  Spec{.LOCAL = 64, .RANK = 2};
};
template <class Spec>
concept TakesUnknown = requires {
  Spec{.LOCAL = 64, .RANK = 2, .MODUS = 1};
};
template <class Spec>
concept TakesWide = requires(int64_t wide) {
  Spec{.LOCAL = wide, .RANK = 2, .MODE = 1};
};
static_assert(TakesAll<spec::Copy> && !TakesSome<spec::Copy> && !TakesUnknown<spec::Copy> &&
              !TakesWide<spec::Copy>);

TEST(SpecialisationTest, WrongNumbersOfValuesAreRefused) {
  KernelCache& kernels = device().kernels();
  const std::vector<std::string> said{"kernel copy:f32", "LOCAL,RANK,MODE", "2 values"};
  expect_error(ErrorCode::internal, said, [&] {
    kernels.get("copy", "f32", SpecValues(std::array{64u, 1u}));
  });
  const std::array many{64u, 1u, 1u, 1u};
  expect_error(ErrorCode::internal, {"4 values"}, [&] { kernels.get("copy", "f32", SpecValues(many)); });
}

class PipelineCacheTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* old = getenv("VKFLUX_CACHE_DIR")) old_ = old;
    setenv("VKFLUX_CACHE_DIR", folder_.path().c_str(), 1);
  }
  void TearDown() override {
    if (old_.empty()) {
      unsetenv("VKFLUX_CACHE_DIR");
    } else {
      setenv("VKFLUX_CACHE_DIR", old_.c_str(), 1);
    }
  }
  static std::unique_ptr<Device> open() {
    DeviceOptions o;
    o.validate = false;
    return Device::create(o);
  }
  static float work(Device& device) { return op::affine(Tensor::full(device, {8}, 2), 3).to_host()[7]; }
  std::vector<fs::path> files() const {
    std::vector<fs::path> out;
    for (const auto& entry : fs::directory_iterator(folder_.path())) out.push_back(entry.path());
    return out;
  }
  static std::string read(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  TempFolder folder_;
  std::string old_;
};

TEST_F(PipelineCacheTest, IsWrittenWhileTheProgramRuns) {
  const auto device = open();
  EXPECT_EQ(work(*device), 6);
  EXPECT_TRUE(files().empty());
  device->kernels().save();
  ASSERT_EQ(files().size(), 1u) << "one file and no temporary one";
  // The driver's header: its own length, version 1, vendor and device. (Mesa 26 writes 20 of its 32 bytes.)
  const std::string data = read(files()[0]);
  uint32_t header[4];
  ASSERT_GE(data.size(), sizeof header);
  std::copy_n(data.data(), sizeof header, reinterpret_cast<char*>(header));
  EXPECT_EQ(header[1], 1u);
  EXPECT_EQ(header[2], device->caps().vendor_id);
  EXPECT_EQ(header[3], device->caps().device_id);
  const auto written = fs::last_write_time(files()[0]);
  device->kernels().save();
  EXPECT_EQ(fs::last_write_time(files()[0]), written) << "nothing new, nothing written";
}

TEST_F(PipelineCacheTest, GarbageIsIgnoredAndReplaced) {
  {
    const auto device = open();
    work(*device);
  }
  ASSERT_EQ(files().size(), 1u);
  const fs::path file = files()[0];
  const std::string good = read(file);
  for (const std::string& bad :
       {std::string(1 << 16, 'x'), good.substr(0, good.size() / 2), std::string(1, '\0')}) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bad;
    {
      const auto device = open();
      EXPECT_EQ(work(*device), 6);
    }
    EXPECT_EQ(files().size(), 1u);
    EXPECT_EQ(read(file).substr(0, 16), good.substr(0, 16));
  }
}

TEST_F(PipelineCacheTest, AFolderInTheFilesPlaceIsNoError) {
  {
    const auto device = open();
    work(*device);
  }
  ASSERT_EQ(files().size(), 1u);
  const fs::path file = files()[0];
  fs::remove(file);
  fs::create_directories(file / "below");
  const auto device = open();
  EXPECT_EQ(work(*device), 6);
  device->kernels().save();
  EXPECT_TRUE(fs::is_directory(file / "below"));
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(PipelineCacheTest, AnEmptyVariableIsNotSet) {
  const char* xdg = getenv("XDG_CACHE_HOME");
  const std::string old = xdg ? xdg : "";
  setenv("VKFLUX_CACHE_DIR", "", 1);
  setenv("XDG_CACHE_HOME", folder_.path().c_str(), 1);
  {
    const auto device = open();
    EXPECT_EQ(work(*device), 6);
  }
  EXPECT_FALSE(fs::is_empty(folder_.path() + "/vkflux"));
  if (old.empty()) {
    unsetenv("XDG_CACHE_HOME");
  } else {
    setenv("XDG_CACHE_HOME", old.c_str(), 1);
  }
}

TEST_F(PipelineCacheTest, AFolderThatCannotBeWrittenIsNoError) {
  setenv("VKFLUX_CACHE_DIR", (folder_.path() + "/file/below").c_str(), 1);
  std::ofstream(folder_.path() + "/file") << "in the way";
  const auto device = open();
  EXPECT_EQ(work(*device), 6);
  device->kernels().save();
  EXPECT_EQ(files().size(), 1u);
}

}  // namespace
}  // namespace vkflux::test
