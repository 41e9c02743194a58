#include "app/outputs.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <filesystem>
#include <map>
#include <set>

#include "model/io/json.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using Kind = io::Destination::Kind;
using Identity = std::pair<dev_t, ino_t>;

/// A path as it is compared with others.
struct Place {
  std::string flag, given;
  fs::path path;               // absolute, without links
  std::optional<Identity> id;  // of a file or folder that is there: hard links share it
  bool folder = false, there = false;
};

std::optional<Identity> identity(const fs::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return {};
  return Identity{info.st_dev, info.st_ino};
}

bool inside(const fs::path& path, const fs::path& folder) {
  const auto [at, rest] = std::mismatch(folder.begin(), folder.end(), path.begin(), path.end());
  return at == folder.end();
}

bool same(const Place& a, const Place& b) {
  return a.path == b.path || (a.id && a.id == b.id);
}

/// What isn't there is reported by who reads it.
std::optional<Place> input_place(const std::string& flag, const std::string& given) {
  std::error_code error;
  const fs::path path = fs::canonical(given, error);
  if (error) return {};
  const bool folder = fs::is_directory(path, error);
  if (!folder && !fs::is_regular_file(path, error)) return {};
  return Place{flag, given, path, identity(path), folder, true};
}

/// The files that a *.safetensors.index.json names; none for every other file.
std::set<std::string> shards_of(const std::string& path) {
  std::set<std::string> shards;
  const fs::path index = path;
  if (index.extension() != ".json" || index.filename().string().find(".index") == std::string::npos)
    return shards;
  try {
    const io::Json fields = io::read_json(path);
    const auto map = fields.find("weight_map");
    if (map == fields.end() || !map->is_object()) return shards;
    for (const auto& [tensor, file] : map->items()) {
      if (file.is_string()) shards.insert((index.parent_path() / file.get<std::string>()).string());
    }
  } catch (const Error&) {  // who opens the file says what is wrong with it
  }
  return shards;
}

std::string shown(const Place& p) {
  return fmt::format("{} {}", p.flag, io::shown(p.given));
}

/// The outputs so far; thousands of pictures are looked up quickly.
class Known {
 public:
  /// The one that `place` would meet: the same file, or one of them lies in the other.
  const Place* met_by(const Place& place) const {
    if (place.id) {
      if (const auto it = by_id_.find(*place.id); it != by_id_.end()) return &places_[it->second];
    }
    for (fs::path at = place.path; at.has_relative_path(); at = at.parent_path()) {
      if (const auto it = by_path_.find(at.string()); it != by_path_.end()) return &places_[it->second];
    }
    const std::string below = place.path.string() + "/";
    const auto it = by_path_.lower_bound(below);
    return it != by_path_.end() && it->first.starts_with(below) ? &places_[it->second] : nullptr;
  }
  void add(const Place& place) {
    by_path_[place.path.string()] = places_.size();
    if (place.id) by_id_[*place.id] = places_.size();
    places_.push_back(place);
  }

 private:
  std::vector<Place> places_;
  std::map<std::string, size_t> by_path_;
  std::map<Identity, size_t> by_id_;
};

io::Destination writable(const std::string& flag, const std::string& path, bool folder) {
  const ErrorContext context(flag);
  const io::Destination to = io::destination(path);
  if (!folder) io::check_replaceable(to, path);
  if (folder && (to.kind == Kind::file || to.kind == Kind::stream))
    throw Error(ErrorCode::io, fmt::format("{}: this is a file, a folder is needed", path));
  return to;
}

[[noreturn]] void meet(const Place& output, const Place& other, const char* how) {
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} {} {}: give another name or folder", shown(output), how, shown(other)));
}

}  // namespace

void FileUse::reads(const std::string& flag, const std::string& path) {
  if (path.empty()) return;
  inputs_.push_back({flag, path});
  for (const std::string& shard : shards_of(path)) inputs_.push_back({flag, shard});
}

void FileUse::reads(const std::string& flag, const std::vector<std::string>& paths) {
  for (const std::string& path : paths) reads(flag, path);
}

void FileUse::reads_model(const std::string& flag, const std::string& folder) {
  if (folder.empty()) return;
  const std::string index = folder + "/model_index.json";
  reads(flag, index);
  try {
    const io::Json parts = io::read_json(index);
    for (const auto& [name, value] : parts.items()) {
      if (!name.empty() && io::is_folder(folder + "/" + name)) reads(flag, folder + "/" + name);
    }
  } catch (const Error&) {  // who opens the model says what is wrong with it
  }
}

void FileUse::writes(const std::string& flag, const std::string& path) {
  if (!path.empty()) outputs_.push_back({flag, path, false, false});
}

void FileUse::fills(const std::string& flag, const std::string& folder) {
  if (!folder.empty()) outputs_.push_back({flag, folder, true, false});
}

void FileUse::runs_in(const std::string& flag, const std::string& folder,
                      const std::vector<std::string>& files, const std::vector<std::string>& folders) {
  run_folders_.push_back({flag, folder});
  for (const std::string& name : files) outputs_.push_back({flag, folder + "/" + name, false, true});
  for (const std::string& name : folders) outputs_.push_back({flag, folder + "/" + name, true, true});
}

void FileUse::check() const {
  std::vector<Place> inputs;
  for (const Input& i : inputs_) {
    if (std::optional<Place> place = input_place(i.flag, i.path)) inputs.push_back(std::move(*place));
  }
  for (const Input& run : run_folders_) {
    const std::optional<Place> folder = input_place(run.flag, run.path);
    for (const Place& input : inputs) {
      if (folder && same(*folder, input))
        meet(*folder, input, "is also read, and a run needs a folder of its own:");
    }
  }
  Known outputs;
  std::set<std::string> probed;
  for (const Output& o : outputs_) {
    const io::Destination to = writable(o.flag, o.path, o.folder);
    if (to.kind == Kind::stream) continue;
    const Place here{o.flag, o.path, to.path, identity(to.path), o.folder, to.kind != Kind::absent};
    for (const Place& input : inputs) {
      if (same(here, input)) meet(here, input, "would be written over");
      if (here.folder && inside(input.path, here.path))
        meet(here, input, "is a folder that is filled, and would replace");
      if (!here.folder && here.there && !o.own && input.folder && inside(here.path, input.path))
        meet(here, input, "would replace a file of");
    }
    if (const Place* other = outputs.met_by(here)) meet(here, *other, "is the same as, or lies in,");
    outputs.add(here);
    const std::string folder = o.folder ? to.path : here.path.parent_path().string();
    if (!probed.insert(folder).second) continue;
    const ErrorContext context(o.flag);
    io::probe_folder(folder);
  }
}

}  // namespace vkflux
