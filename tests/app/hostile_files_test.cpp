// Damaged files, thousands of them, through every loader: each is either refused with an Error that blames
// the file, or loads; within a time, and within a small multiple of the file's size in memory.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <time.h>

#include <filesystem>
#include <fstream>

#include "model/io/file.h"
#include "model/io/json.h"
#include "tests/harness/allocations.h"
#include "tests/harness/loaders.h"
#include "tests/harness/mutator.h"
#include "tests/harness/temp_folder.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

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
  std::string bytes = pick();
  constexpr size_t kFront = 4096;  // headers are in front of far more data
  if (bytes.size() > kFront && mutator.below(2)) {
    bytes = mutator.mutate(bytes.substr(0, kFront), pick()) + bytes.substr(kFront);
  } else {
    bytes = mutator.mutate(std::move(bytes), pick());
  }
  if (loader.repair && mutator.below(4) != 0) loader.repair(bytes);
  return bytes;
}

uint64_t bytes_in(const std::string& folder) {
  uint64_t total = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) total += entry.file_size();
  }
  return total;
}

bool blames_the_file(const Error& e, const test::LoaderCase& loader) {
  const bool wrong_use = !loader.mismatch.empty() && e.code() == ErrorCode::invalid_argument &&
                         std::string(e.what()).find(loader.mismatch) != std::string::npos;
  return wrong_use || e.code() == ErrorCode::format || e.code() == ErrorCode::io ||
         e.code() == ErrorCode::unsupported;
}

class HostileFiles : public ::testing::TestWithParam<std::string> {
 protected:
  const test::LoaderCase& loader_ = test::loader_case(GetParam());
  test::TempFolder folder_;
  std::string path_ = folder_.file(loader_.file_name);
  uint64_t other_bytes_ = 0;  // of the files that aren't damaged
  double largest_ = 0;        // share of the allowed memory that was used

  void SetUp() override {
    if (loader_.prepare) loader_.prepare(folder_.path());
    fs::remove(path_);
    other_bytes_ = bytes_in(folder_.path());
  }

  /// True: refused.
  bool load(const std::string& bytes, const std::string& what) {
    write(path_, bytes);
    bool refused = false;
    const double start = cpu_seconds();
    const test::AllocationMeter meter;
    try {
      loader_.load(path_);
    } catch (const Error& e) {
      refused = true;
      EXPECT_TRUE(blames_the_file(e, loader_)) << what << ": " << name(e.code()) << ": " << e.what();
      EXPECT_LT(std::string_view(e.what()).size(), 8192u) << what;
    } catch (const std::exception& e) {
      ADD_FAILURE() << what << " threw something else: " << e.what();
    }
    EXPECT_LT(cpu_seconds() - start, 2.0) << what;
    const uint64_t most = kBaseBytes + kGrowth * (other_bytes_ + bytes.size());
    EXPECT_LE(meter.peak(), most) << what << ", " << bytes.size() << " bytes";
    largest_ = std::max(largest_, static_cast<double>(meter.peak()) / static_cast<double>(most));
    return refused;
  }

  // The base is for what the validation layer and the driver allocate on this thread.
  static constexpr uint64_t kBaseBytes = 2 << 20, kGrowth = 16;
};

TEST_P(HostileFiles, AreRefusedOrLoad) {
  for (const std::string& good : loader_.corpus) {
    write(path_, good);
    try {
      loader_.load(path_);
    } catch (const Error& e) {  // the names loader wants a whole model: only its fit may be at fault
      EXPECT_NE(std::string(e.what()).find("don't fit"), std::string::npos) << e.what();
    }
  }
  const MemoryCeiling ceiling(96ull << 20);
  size_t refused = 0;
  for (uint64_t seed = 0; seed < loader_.rounds; ++seed)
    refused += load(damaged(loader_, seed), loader_.name + " seed " + std::to_string(seed));
  EXPECT_GE(refused, loader_.tolerant ? 0 : loader_.rounds / 20);
  RecordProperty("refused", std::to_string(refused));
  RecordProperty("memory_share", std::to_string(largest_));
}

INSTANTIATE_TEST_SUITE_P(Loaders, HostileFiles, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const auto& c : test::loader_cases()) names.push_back(c.name);
                           return names;
                         }()),
                         [](const auto& info) { return info.param; });

// The texts with the most values per byte, as large as files are.
TEST(HostileText, DensestJsonStaysSmall) {
  const auto many = [](const char* front, const std::string& item, const char* back) {
    std::string text = front;
    while (text.size() < 1 << 20) text += item + ",";
    text.back() = *back;
    return text;
  };
  std::string keys = "{";
  for (size_t i = 0; keys.size() < 1 << 18; ++i) keys += fmt::format("\"{}\":0,", i);
  keys.back() = '}';
  for (const std::string& text : {many("[", "0", "]"), many("[", "[]", "]"), many("[", "{}", "]"),
                                  many("[", "\"\"", "]"), many("[", R"({"a":0})", "]"), keys}) {
    for (const bool sorted : {false, true}) {
      const test::AllocationMeter meter;
      try {
        if (sorted) {
          io::parse_sorted_json(text, "x");
        } else {
          io::parse_json(text, "x");
        }
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::format);
      }
      EXPECT_LT(meter.peak(), 48 * text.size()) << text.substr(0, 20) << (sorted ? " sorted" : "");
    }
  }
}

TEST(Mutator, SameSeedSameBytes) {
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
