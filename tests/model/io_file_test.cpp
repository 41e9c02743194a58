// Files: limits, odd kinds, and writing that replaces a file whole or not at all.
#include "model/io/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

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

TEST(IoFile, ALinkStaysAndItsFileIsMade) {
  const test::TempFolder folder;
  fs::create_directory(folder.file("real"));
  fs::create_symlink("real/absent", folder.file("dangling"));
  fs::create_symlink("dangling", folder.file("second"));
  atomic_write(folder.file("second"), "new");
  EXPECT_TRUE(fs::is_symlink(folder.file("second")));
  EXPECT_TRUE(fs::is_symlink(folder.file("dangling")));
  EXPECT_EQ(read_file(folder.file("real/absent")), "new");
  fs::create_symlink("loop", folder.file("loop"));
  expect_error(ErrorCode::io, {"loop"}, [&] { atomic_write(folder.file("loop"), "new"); });
  EXPECT_TRUE(fs::is_symlink(folder.file("loop")));
}

TEST(IoFile, AnOldFileKeepsItsPermissions) {
  const test::TempFolder folder;
  atomic_write(folder.file("x"), "old");
  for (const mode_t mode : {0600u, 0640u, 0755u}) {
    ASSERT_EQ(::chmod(folder.file("x").c_str(), mode), 0);
    atomic_write(folder.file("x"), "new");
    struct stat info {};
    ASSERT_EQ(::stat(folder.file("x").c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, mode);
  }
}

TEST(IoFile, DevicesAndPipesAreWrittenInto) {
  const test::TempFolder folder;
  atomic_write("/dev/null", "gone");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  expect_error(ErrorCode::io, {"/dev/full", "No space"}, [] { atomic_write("/dev/full", "text"); });
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  fs::create_symlink("pipe", folder.file("link"));
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  atomic_write(folder.file("link"), "through");
  char text[16] = "";
  EXPECT_EQ(::read(reader, text, sizeof text), 7);
  EXPECT_STREQ(text, "through");
  ::close(reader);
  EXPECT_TRUE(fs::is_fifo(pipe));
  // An open descriptor by its name: what is written goes where it stands, the file isn't exchanged.
  const int file = ::open(folder.file("out").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(::write(file, "first ", 6), 6);
  atomic_write("/dev/fd/" + std::to_string(file), "second");
  atomic_write("/proc/self/fd/" + std::to_string(file), " third");
  ::close(file);
  EXPECT_EQ(read_file(folder.file("out")), "first second third");
}

TEST(IoFile, NamesUpToTheLongest) {
  const test::TempFolder folder;
  const std::string longest = folder.file(std::string(255, 'n'));
  atomic_write(longest, "text");
  atomic_write(longest, "again");
  EXPECT_EQ(read_file(longest), "again");
  expect_error(ErrorCode::io, {"too long"}, [&] { atomic_write(longest + "n", ""); });
  expect_error(ErrorCode::io, {"nnn"}, [&] { atomic_write(folder.file(std::string(5000, 'n')), ""); });
  expect_error(ErrorCode::io, {""}, [&] { atomic_write("", ""); });
  EXPECT_EQ(entries(folder.path()), 1u);
}

TEST(IoFile, LooksWithoutThrowing) {
  const test::TempFolder folder;
  fs::create_symlink("loop", folder.file("loop"));
  fs::create_symlink("none", folder.file("dangling"));
  atomic_write(folder.file("b"), "");
  fs::create_directory(folder.file("a"));
  EXPECT_EQ(folder_entries(folder.path()), (std::vector<std::string>{folder.file("a"), folder.file("b")}));
  for (const std::string& odd : {folder.file("loop"), folder.file("none"), folder.file("b/below"),
                                 folder.file(std::string(5000, 'n')), std::string()}) {
    EXPECT_FALSE(is_there(odd));
    EXPECT_FALSE(is_folder(odd));
    EXPECT_THROW(folder_entries(odd), Error);
  }
}

TEST(IoFile, TheLastName) {
  for (const char* path : {"runs/ttr", "runs/ttr/", "runs/ttr//", "runs/ttr/.", "runs/x/../ttr/", "ttr"})
    EXPECT_EQ(last_name(path), "ttr") << path;
  EXPECT_EQ(last_name("."), fs::current_path().filename());
  EXPECT_EQ(last_name("a.b, c.png"), "a.b, c.png");
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
