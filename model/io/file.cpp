#include "model/io/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
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

namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxLinks = 40, kMaxName = 255, kSuffix = 7;  // ".XXXXXX"

[[noreturn]] void fail(const std::string& path, const char* what, const std::error_code& error) {
  throw Error(ErrorCode::io, fmt::format("{}: {}: {}", path, what, error.message()));
}

/// The number of an open descriptor that has a name, as /dev/stdout has; -1 for another path.
int descriptor_named(const fs::path& parent, const std::string& name) {
  std::error_code ignored;
  const fs::path own = fs::canonical("/proc/self/fd", ignored);
  int number = -1;
  if (own.empty() || parent != own) return -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  return error == std::errc() && end == name.data() + name.size() ? number : -1;
}

Destination::Kind kind_of(const fs::path& path, const std::string& name) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  switch (status.type()) {
    case fs::file_type::not_found:
      return Destination::Kind::absent;
    case fs::file_type::none:
      fail(name, "can't be looked at", error);
    case fs::file_type::regular:
      return Destination::Kind::file;
    case fs::file_type::directory:
      return Destination::Kind::folder;
    case fs::file_type::socket:
      throw Error(ErrorCode::io, fmt::format("{}: a socket, not something to write a file to", name));
    default:
      return Destination::Kind::stream;
  }
}

void write_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path, "can't write");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void write_into(const Destination& to, const std::string& name,
                const std::function<void(const Sink&)>& produce) {
  std::fflush(stdout);  // what was printed before comes first
  const int fd =
      to.descriptor >= 0 ? ::dup(to.descriptor) : ::open(to.path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) fail(name, "can't open");
  try {
    produce([&](std::span<const std::byte> bytes) { write_all(fd, bytes, name); });
  } catch (...) {
    ::close(fd);
    throw;
  }
  if (::close(fd) != 0) fail(name, "can't write");
}

}  // namespace

Destination destination(const std::string& name) {
  std::error_code error;
  fs::path path = fs::absolute(name, error);
  if (name.empty()) throw Error(ErrorCode::io, "'' is no file's name");
  if (error) fail(name, "can't be looked at", error);
  path = path.lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  for (size_t links = 0; links <= kMaxLinks; ++links) {
    const fs::path parent = fs::weakly_canonical(path.parent_path(), error);
    if (error) fail(name, "can't be looked at", error);
    path = parent / path.filename();
    if (fs::symlink_status(path, error).type() != fs::file_type::symlink)
      return {path.string(), kind_of(path, name), -1};
    if (const int number = descriptor_named(parent, path.filename().string()); number >= 0)
      return {path.string(), Destination::Kind::stream, number};
    const fs::path target = fs::read_symlink(path, error);
    if (error) fail(name, "can't be looked at", error);
    path = (parent / target).lexically_normal();
  }
  errno = ELOOP;
  fail(name, "can't be looked at");
}

std::string probe_folder(const std::string& name) {
  std::error_code error;
  fs::path folder(name);
  while (!fs::exists(folder, error) && folder.has_relative_path()) {
    if (folder.filename().string().size() > kMaxName) {
      errno = ENAMETOOLONG;
      fail(name, "can't be made");
    }
    folder = folder.parent_path();
  }
  if (!fs::is_directory(folder, error))
    throw Error(ErrorCode::io, fmt::format("{}: {} is no folder", name, folder.string()));
  std::string temporary = (folder / ".XXXXXX").string();
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) fail(folder.string(), "nothing can be written into this folder");
  ::close(fd);
  ::unlink(temporary.c_str());
  return folder.string();
}

void check_replaceable(const Destination& to, const std::string& name) {
  if (to.kind == Destination::Kind::folder)
    throw Error(ErrorCode::io, fmt::format("{}: this is a folder, a file's name is needed", name));
  if (fs::path(to.path).filename().string().size() > kMaxName) {
    errno = ENAMETOOLONG;
    fail(name, "can't be made");
  }
  if (to.kind == Destination::Kind::file && ::access(to.path.c_str(), W_OK) != 0)
    fail(name, "can't be replaced");
}

void atomic_write(const std::string& name, const std::function<void(const Sink&)>& produce) {
  const Destination to = destination(name);
  check_replaceable(to, name);
  if (to.kind == Destination::Kind::stream) return write_into(to, name, produce);
  const std::string& path = to.path;
  const std::string folder = fs::path(path).parent_path().string();
  std::error_code ignored;
  fs::create_directories(folder, ignored);
  const std::string file = fs::path(path).filename().string();
  std::string temporary = (fs::path(folder) / file.substr(0, kMaxName - kSuffix)).string() + ".XXXXXX";
  const int fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  if (fd < 0) fail(name, "can't create a temporary file beside it");
  bool open = true;
  try {
    produce([&](std::span<const std::byte> bytes) { write_all(fd, bytes, name); });
    struct stat old {};
    const bool there = to.kind == Destination::Kind::file && ::stat(path.c_str(), &old) == 0;
    if (::fchmod(fd, there ? old.st_mode & 07777 : 0644) != 0 || ::fsync(fd) != 0) fail(name, "can't write");
    open = false;
    if (::close(fd) != 0) fail(name, "can't write");
    if (::rename(temporary.c_str(), path.c_str()) != 0) fail(name, "can't replace");
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

std::vector<std::string> folder_entries(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> out;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (is_there(it->path().string())) out.push_back(it->path().string());
  }
  if (error) fail(folder, "can't be listed", error);
  std::sort(out.begin(), out.end());
  return out;
}

bool is_folder(const std::string& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

bool is_there(const std::string& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

std::string last_name(const std::string& path) {
  std::error_code ignored;
  fs::path whole = fs::absolute(path, ignored).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();
  return whole.filename().string();
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
