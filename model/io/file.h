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

/// Where a write to a path ends.
struct Destination {
  enum class Kind { absent, file, folder, stream };
  std::string path;  // absolute, with all links followed, also where what they name is still to be made
  Kind kind = Kind::absent;
  int descriptor = -1;  // of a stream that is one of the process's own, as /dev/stdout is
};

/// Error io: links in a circle, names that are too long, a socket.
Destination destination(const std::string& path);
/// Error io, naming `name`, for a folder, a file that may not be written, a name that is too long.
void check_replaceable(const Destination& to, const std::string& name);
/// Whether files can be made in a folder that may still have to be made itself: one is made and deleted in
/// the nearest folder that is there, which is returned. Error io.
std::string probe_folder(const std::string& folder);

/// Writes to a temporary file beside `path`, syncs it, renames it and syncs the folder. On any failure (Error
/// io with the system's reason) the temporary file is gone and the old file is untouched. Missing parent
/// folders are made; where `path` is a symbolic link, the file that it names is replaced; an old file's
/// permissions are kept. Devices and pipes are written into: they aren't replaced.
void atomic_write(const std::string& path, const std::function<void(const Sink&)>& produce);
void atomic_write(const std::string& path, std::string_view contents);

/// The paths of what lies in a folder, sorted; links in it are followed, and those that lead nowhere are left
/// out. Error io.
std::vector<std::string> folder_entries(const std::string& folder);
/// Whether there is a folder, a file, anything; never an error.
bool is_folder(const std::string& path);
bool is_there(const std::string& path);
/// The last name of a path, whatever slashes and dots follow it: what people call a model's folder.
std::string last_name(const std::string& path);

/// A name or text taken from a file, fit for a message: at most 160 bytes, control characters as '?'.
std::string shown(std::string_view text);

}  // namespace vkflux::io
