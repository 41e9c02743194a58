// Files: limits, odd kinds, and writing that replaces a file whole or not at all.
#include "model/io/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/harness/expect_error.h"
#include "tests/harness/temp_folder.h"

namespace vkflux::io {
namespace {

using test::expect_error;
namespace fs = std::filesystem;

size_t entries(const std::string& folder) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

/// Writing beyond `bytes` fails with EFBIG, as a full disk does with ENOSPC.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(uint64_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    rlimit limit = old_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit old_{};
};

TEST(IoFile, WritesAndReadsBack) {
  const test::TempFolder folder;
  const std::string path = folder.file("new/folders/x.bin"), text("a\0b\n", 4);
  atomic_write(path, text);
  EXPECT_EQ(read_file(path), text);
  atomic_write(path, "second");
  EXPECT_EQ(read_file(path), "second");
  EXPECT_EQ(entries(folder.file("new/folders")), 1u);
  atomic_write(path, "");
  EXPECT_EQ(read_file(path), "");
}

TEST(IoFile, ReadRefusesWhatItShould) {
  const test::TempFolder folder;
  atomic_write(folder.file("x"), "12345");
  expect_error(ErrorCode::format, {folder.file("x"), "5 bytes", "at most 4"},
               [&] { read_file(folder.file("x"), 4); });
  expect_error(ErrorCode::io, {folder.file("none"), "No such file"}, [&] { read_file(folder.file("none")); });
  expect_error(ErrorCode::io, {folder.path()}, [&] { read_file(folder.path()); });
  ASSERT_EQ(::mkfifo(folder.file("pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::io, {"pipe", "not a regular file"}, [&] { read_file(folder.file("pipe")); });
}

TEST(IoFile, AFileThatShrinksIsAnError) {
  const test::TempFolder folder;
  atomic_write(folder.file("x"), std::string(100, 'a'));
  const ReadFile file(folder.file("x"));
  fs::resize_file(folder.file("x"), 10);
  std::vector<std::byte> out(50);
  expect_error(ErrorCode::format, {folder.file("x"), "ends early"}, [&] { file.read(0, out); });
}

TEST(IoFile, AFullDiskLeavesTheOldFile) {
  const test::TempFolder folder;
  const std::string path = folder.file("x");
  atomic_write(path, "the old contents");
  {
    const FileSizeLimit limit(64 << 10);
    const std::string large(256 << 10, 'n');
    expect_error(ErrorCode::io, {path, "can't write", "File too large"}, [&] { atomic_write(path, large); });
  }
  EXPECT_EQ(read_file(path), "the old contents");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(IoFile, AFailingProducerLeavesTheOldFile) {
  const test::TempFolder folder;
  const std::string path = folder.file("x");
  atomic_write(path, "old");
  expect_error(ErrorCode::cancelled, {"stop"}, [&] {
    atomic_write(path, [](const Sink& sink) {
      sink(std::vector<std::byte>(1000));
      throw Error(ErrorCode::cancelled, "stop");
    });
  });
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(IoFile, WhereNoFileCanBe) {
  const test::TempFolder folder;
  atomic_write(folder.file("x"), "old");
  expect_error(ErrorCode::io, {"x/below"}, [&] { atomic_write(folder.file("x/below"), "new"); });
  fs::create_directory(folder.file("folder"));
  expect_error(ErrorCode::io, {"folder"}, [&] { atomic_write(folder.file("folder"), "new"); });
  EXPECT_EQ(entries(folder.path()), 2u);
}

TEST(IoFile, WritesThroughASymbolicLink) {
  const test::TempFolder folder;
  fs::create_directory(folder.file("real"));
  atomic_write(folder.file("real/x"), "old");
  fs::create_symlink("real/x", folder.file("link"));
  atomic_write(folder.file("link"), "new");
  EXPECT_TRUE(fs::is_symlink(folder.file("link")));
  EXPECT_EQ(read_file(folder.file("real/x")), "new");
}

TEST(IoFile, ShownNamesFitAMessage) {
  EXPECT_EQ(shown("a.weight"), "a.weight");
  EXPECT_EQ(shown("a\n\x1b[31m"), "a??[31m");
  EXPECT_EQ(shown(std::string(1000, 'x')).size(), 163u);
  EXPECT_EQ(shown(std::string(159, 'x') + "\u00e9\u00e9"), std::string(159, 'x') + "...");
}

// The tests that look for temporary files left behind know what they are called.
TEST(IoFile, TemporaryFilesAreFound) {
  const test::TempFolder folder;
  const std::string path = folder.file("run/checkpoint.safetensors");
  size_t seen = 0;
  atomic_write(path, [&](const Sink& sink) {
    sink(std::as_bytes(std::span("x", 1)));
    seen = test::temporary_files(folder.path()).size();
  });
  EXPECT_EQ(seen, 1u);
  EXPECT_TRUE(test::temporary_files(folder.path()).empty());
  EXPECT_THROW(atomic_write(path, [&](const Sink&) { throw Error(ErrorCode::io, "no"); }), Error);
  EXPECT_TRUE(test::temporary_files(folder.path()).empty());
}

}  // namespace
}  // namespace vkflux::io
