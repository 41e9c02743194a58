#include "model/io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "vk/error.h"

namespace vkflux::io {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw Error(ErrorCode::io, fmt::format("{}: {}: {}", path, what, std::strerror(errno)));
}

}  // namespace

// O_NONBLOCK: opening a pipe must not wait for a writer.
ReadFile::ReadFile(const std::string& path)
    : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (fd_ < 0) fail(path, "can't open");
  struct stat info {};
  if (::fstat(fd_, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd_);
    throw Error(ErrorCode::io, fmt::format("{}: not a regular file", path));
  }
  size_ = static_cast<uint64_t>(info.st_size);
}

ReadFile::~ReadFile() {
  ::close(fd_);
}

void ReadFile::read(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, "can't read");
    if (n == 0) throw Error(ErrorCode::format, fmt::format("{}: ends early, at byte {}", path_, offset));
    offset += static_cast<uint64_t>(n);
    out = out.subspan(static_cast<size_t>(n));
  }
}

std::string read_file(const std::string& path, uint64_t max_bytes) {
  const ReadFile file(path);
  if (file.size() > max_bytes) {
    throw Error(ErrorCode::format,
                fmt::format("{}: {} bytes, at most {} are expected", path, file.size(), max_bytes));
  }
  std::string out(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(out)));
  return out;
}

void atomic_write(const std::string& name, const std::function<void(const Sink&)>& produce) {
  std::error_code no_link;
  const std::filesystem::path resolved = std::filesystem::is_symlink(name, no_link)
                                             ? std::filesystem::weakly_canonical(name, no_link)
                                             : std::filesystem::path(name);
  const std::string path = no_link || resolved.empty() ? name : resolved.string();
  const std::filesystem::path target(path);
  const std::string folder = target.has_parent_path() ? target.parent_path().string() : ".";
  std::error_code ignored;
  std::filesystem::create_directories(folder, ignored);
  std::string temporary = path + ".XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) fail(path, "can't create a temporary file beside it");
  bool open = true;
  try {
    produce([&](std::span<const std::byte> bytes) {
      while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail(path, "can't write");
        bytes = bytes.subspan(static_cast<size_t>(n));
      }
    });
    if (::fchmod(fd, 0644) != 0 || ::fsync(fd) != 0) fail(path, "can't write");
    open = false;
    if (::close(fd) != 0) fail(path, "can't write");
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail(path, "can't replace");
  } catch (...) {
    if (open) ::close(fd);
    ::unlink(temporary.c_str());
    throw;
  }
  const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
}

std::string shown(std::string_view text) {
  constexpr size_t kMax = 160;
  std::string out(text.substr(0, kMax));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  if (text.size() <= kMax) return out;
  while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80) out.pop_back();
  if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0) out.pop_back();  // no half characters
  return out + "...";
}

void atomic_write(const std::string& path, std::string_view contents) {
  atomic_write(path,
               [&](const Sink& sink) { sink(std::as_bytes(std::span(contents.data(), contents.size()))); });
}

}  // namespace vkflux::io
