// Damaged files, thousands of them, through every loader: each is either refused with an Error that isn't an
// out-of-memory one, or loads; within bounded memory and time.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include <fstream>

#include "model/io/file.h"
#include "tests/harness/loaders.h"
#include "tests/harness/mutator.h"
#include "tests/harness/temp_folder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized = __has_feature(address_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

/// Allocations that would take the process more than `extra` bytes above what it holds now fail while it
/// lives.
class MemoryCeiling {
 public:
  explicit MemoryCeiling(uint64_t extra) {
    if (kSanitized) return;  // its shadow memory counts too
    std::ifstream statm("/proc/self/statm");
    uint64_t pages[6] = {};
    for (uint64_t& p : pages) statm >> p;
    ::getrlimit(RLIMIT_DATA, &old_);
    rlimit limit = old_;
    limit.rlim_cur = pages[5] * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE)) + extra;
    active_ = ::setrlimit(RLIMIT_DATA, &limit) == 0;
  }
  ~MemoryCeiling() {
    if (active_) ::setrlimit(RLIMIT_DATA, &old_);
  }
  MemoryCeiling(const MemoryCeiling&) = delete;
  MemoryCeiling& operator=(const MemoryCeiling&) = delete;

 private:
  rlimit old_{};
  bool active_ = false;
};

double cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

void write(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string damaged(const test::LoaderCase& loader, uint64_t seed) {
  test::Mutator mutator(seed);
  const auto pick = [&] { return loader.corpus[mutator.below(loader.corpus.size())]; };
  std::string bytes = mutator.mutate(pick(), pick());
  if (loader.repair && mutator.below(4) != 0) loader.repair(bytes);
  return bytes;
}

class IoHostile : public ::testing::TestWithParam<std::string> {};

TEST_P(IoHostile, DamagedFilesAreRefusedOrLoad) {
  const test::LoaderCase& loader = test::loader_case(GetParam());
  const test::TempFolder folder;
  if (loader.prepare) loader.prepare(folder.path());
  const std::string path = folder.file(loader.file_name);
  for (const std::string& good : loader.corpus) {
    write(path, good);
    try {
      loader.load(path);
    } catch (const Error& e) {  // the names loader wants a whole model: only its fit may be at fault
      EXPECT_NE(std::string(e.what()).find("don't fit"), std::string::npos) << e.what();
    }
  }
  constexpr uint64_t kRounds = 2000;
  const MemoryCeiling ceiling(96ull << 20);
  size_t refused = 0;
  for (uint64_t seed = 0; seed < kRounds; ++seed) {
    write(path, damaged(loader, seed));
    const double start = cpu_seconds();
    try {
      loader.load(path);
    } catch (const Error& e) {
      ++refused;
      EXPECT_TRUE(e.code() == ErrorCode::format || e.code() == ErrorCode::io ||
                  e.code() == ErrorCode::unsupported)
          << loader.name << " seed " << seed << ": " << name(e.code()) << ": " << e.what();
      EXPECT_LT(std::string_view(e.what()).size(), 8192u) << loader.name << " seed " << seed;
    } catch (const std::exception& e) {
      ADD_FAILURE() << loader.name << " seed " << seed << " threw something else: " << e.what();
    }
    EXPECT_LT(cpu_seconds() - start, 2.0) << loader.name << " seed " << seed;
  }
  EXPECT_GT(refused, kRounds / 10);
}

INSTANTIATE_TEST_SUITE_P(Loaders, IoHostile, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const auto& c : test::loader_cases()) names.push_back(c.name);
                           return names;
                         }()),
                         [](const auto& info) { return info.param; });

TEST(IoMutator, SameSeedSameBytes) {
  const std::string input = R"({"a":[1,2,3],"b":"text"})";
  size_t changed = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const std::string first = test::Mutator(seed).mutate(input, input);
    EXPECT_EQ(first, test::Mutator(seed).mutate(input, input));
    changed += first != input;
  }
  EXPECT_GT(changed, 80u);
}

}  // namespace
}  // namespace vkflux
