#include "train/run_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fnmatch.h>
#include <spdlog/spdlog.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "train/metric_values.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEvents =
    "events/events.out.tfevents.[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9].vkflux";

/// Calls fn(path) for everything below `folder` that the pattern names.
template <class F>
void each_match(const fs::path& folder, const fs::path& pattern, const F& fn) {
  const auto first = pattern.begin();
  fs::path rest;
  for (auto it = std::next(first); it != pattern.end(); ++it) rest /= *it;
  std::vector<fs::path> found;
  std::error_code ignored;  // a folder that isn't there holds nothing
  for (fs::directory_iterator it(folder, ignored), end; it != end && !ignored; it.increment(ignored)) {
    if (::fnmatch(first->c_str(), it->path().filename().c_str(), 0) == 0) found.push_back(it->path());
  }
  for (const fs::path& path : found) {
    if (rest.empty()) {
      fn(path);
    } else if (fs::is_directory(fs::symlink_status(path, ignored))) {
      each_match(path, rest, fn);
      ::rmdir(path.c_str());  // only when nothing is left
    }
  }
}

using Keep = std::function<bool(const std::string& path)>;

void remove_matches(const std::string& folder, const std::string& pattern, const Keep& keep = {}) {
  each_match(folder, pattern, [&](const fs::path& path) {
    if (keep && keep(path.string())) return;
    std::error_code ignored;
    if (fs::is_directory(fs::symlink_status(path, ignored))) return;
    if (::unlink(path.c_str()) != 0 && errno != ENOENT)
      throw Error(ErrorCode::io, fmt::format("{}: can't remove: {}", path.string(), std::strerror(errno)));
  });
}

std::string holder(int fd) {
  char text[32] = {};
  const ssize_t n = ::pread(fd, text, sizeof(text) - 1, 0);
  const bool number = n > 0 && std::all_of(text, text + n, [](char c) { return c >= '0' && c <= '9'; });
  return number ? fmt::format("process {}", text) : "another process";
}

}  // namespace

std::string RunFolder::name() const {
  const fs::path folder = fs::path(path + "/").lexically_normal().parent_path();
  return metric_namespace(folder.filename().string());
}

const std::vector<std::string>& RunFolder::own_files() {
  static const std::vector<std::string> names{"checkpoint.safetensors", "params.json", "metrics.jsonl"};
  return names;
}

void RunFolder::clear_events() const {
  remove_matches(path, kEvents);
}

void RunFolder::clear(const std::vector<std::string>& results, const Keep& keep) const {
  for (const std::string& own : own_files()) remove_matches(path, own, keep);
  remove_matches(path, kEvents, keep);
  for (const std::string& pattern : results) remove_matches(path, pattern, keep);
}

RunLock::RunLock(const RunFolder& folder) : path_(folder.file("run.lock")) {
  if (folder.path.empty()) throw Error(ErrorCode::invalid_argument, "--out is empty: a run needs a folder");
  std::error_code error;
  for (fs::path p = fs::path(folder.path).lexically_normal(); !p.empty() && !fs::exists(p, error);) {
    if (p.has_filename()) made_.insert(made_.begin(), p.string());
    const fs::path parent = p.parent_path();
    if (parent == p) break;
    p = parent;
  }
  fs::create_directories(folder.path, error);
  try {
    if (error)
      throw Error(ErrorCode::io, fmt::format("{}: can't make the folder: {}", folder.path, error.message()));
    take();
  } catch (...) {
    remove_folders();
    throw;
  }
}

// A lock is removed by whoever holds it, so one that was opened may be gone from the folder when it is held.
void RunLock::take() {
  for (;;) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    if (fd_ < 0) throw Error(ErrorCode::io, fmt::format("{}: can't open: {}", path_, std::strerror(errno)));
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      const int fault = errno;
      if (fault != EWOULDBLOCK) {
        spdlog::warn("{}: this file system has no locks ({}): see to it that no second process writes there",
                     path_, std::strerror(fault));
        return;
      }
      const std::string who = holder(fd_);
      ::close(fd_);
      fd_ = -1;
      throw Error(ErrorCode::io,
                  fmt::format("{}: {} is at work in this folder; wait for it, end it, or give another --out",
                              fs::path(path_).parent_path().string(), who));
    }
    struct stat held {
    }, there{};
    if (::fstat(fd_, &held) == 0 && ::stat(path_.c_str(), &there) == 0 && held.st_ino == there.st_ino &&
        held.st_dev == there.st_dev)
      break;
    ::close(fd_);
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd_, 0) != 0 || ::pwrite(fd_, pid.data(), pid.size(), 0) < 0)
    spdlog::warn("{}: can't write: {}", path_, std::strerror(errno));
}

void RunLock::remove_folders() noexcept {
  for (auto it = made_.rbegin(); it != made_.rend(); ++it) ::rmdir(it->c_str());
}

RunLock::~RunLock() {
  ::unlink(path_.c_str());
  ::close(fd_);
  remove_folders();
}

}  // namespace vkflux
