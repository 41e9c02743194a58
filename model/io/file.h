// Files read with limits and written atomically.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux::io {

/// The whole file. Error io when it can't be read, format when it has more than max_bytes.
std::string read_file(const std::string& path, uint64_t max_bytes = 1ull << 30);

/// A file open for reading; every read is checked, so a file that shrinks is an error and never a crash.
class ReadFile {
 public:
  explicit ReadFile(const std::string& path);
  ~ReadFile();
  ReadFile(const ReadFile&) = delete;
  ReadFile& operator=(const ReadFile&) = delete;
  uint64_t size() const { return size_; }
  void read(uint64_t offset, std::span<std::byte> out) const;

 private:
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

/// Gives the contents piece by piece.
using Sink = std::function<void(std::span<const std::byte>)>;

/// Writes to a temporary file beside `path`, syncs it, renames it and syncs the folder. On any failure (Error
/// io with the system's reason) the temporary file is gone and the old file is untouched. Missing parent
/// folders are made; where `path` is a symbolic link, the file that it names is replaced.
void atomic_write(const std::string& path, const std::function<void(const Sink&)>& produce);
void atomic_write(const std::string& path, std::string_view contents);

/// A name or text taken from a file, fit for a message: at most 160 bytes, control characters as '?'.
std::string shown(std::string_view text);

}  // namespace vkflux::io
