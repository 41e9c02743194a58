#include "model/io/hugging_face.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "model/io/file.h"
#include "vk/environment.h"
#include "vk/error.h"

namespace vkflux::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "models--";

bool is_name(std::string_view text) {
  if (text.empty() || text.size() > 96 || text.front() == '.' || text.front() == '-') return false;
  return text.find("--") == std::string_view::npos &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return std::isalnum(c) || c == '-' || c == '_' || c == '.'; });
}

std::string trimmed(std::string text) {
  const auto blank = [](unsigned char c) { return std::isspace(c) != 0; };
  while (!text.empty() && blank(text.back())) text.pop_back();
  return text;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// A revision names a file below refs/ or a folder of snapshots/: nothing that leaves them.
bool is_revision(const std::string& text) {
  const fs::path path(text);
  return !text.empty() && text.size() <= 200 && path.is_relative() &&
         std::none_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
}

}  // namespace

std::string hugging_face_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const std::string cache = environment(name); !cache.empty()) return cache;
  }
  if (const std::string home = environment("HF_HOME"); !home.empty()) return home + "/hub";
  if (const std::string cache = environment("XDG_CACHE_HOME"); !cache.empty())
    return cache + "/huggingface/hub";
  const std::string home = environment("HOME");
  return home.empty() ? std::string() : home + "/.cache/huggingface/hub";
}

HubName parse_hub_name(std::string_view text) {
  while (text.ends_with('/')) text.remove_suffix(1);
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return {};
  const std::string_view organisation = text.substr(0, slash);
  std::string_view rest = text.substr(slash + 1), file;
  if (const size_t next = rest.find('/'); next != std::string_view::npos) {
    file = rest.substr(next + 1);
    rest = rest.substr(0, next);
    if (file.empty()) return {};
  }
  HubName out;
  if (const size_t at = rest.find('@'); at != std::string_view::npos) {
    out.revision = rest.substr(at + 1);
    rest = rest.substr(0, at);
    if (!is_revision(out.revision)) return {};
  }
  if (!is_name(organisation) || !is_name(rest)) return {};
  if (!file.empty() && !is_revision(std::string(file))) return {};
  out.name = std::string(organisation) + "/" + std::string(rest);
  out.file = file;
  return out;
}

std::string snapshot_of_folder(const std::string& folder, const std::string& revision) {
  if (!last_name(folder).starts_with(kPrefix) || !is_folder(folder + "/snapshots")) return {};
  const std::string wanted = revision.empty() ? "main" : revision;
  if (const std::string ref = folder + "/refs/" + wanted; is_there(ref) && !is_folder(ref)) {
    const std::string hash = trimmed(read_file(ref, 4096));
    if (!is_revision(hash))
      throw Error(ErrorCode::format, fmt::format("{}: it says {}, which is no snapshot", ref, shown(hash)));
    if (const std::string path = folder + "/snapshots/" + hash; is_folder(path)) return path;
    throw Error(ErrorCode::io, fmt::format("{}: its snapshot {} isn't there: the download wasn't finished",
                                           ref, shown(hash)));
  }
  if (!revision.empty()) {
    if (const std::string path = folder + "/snapshots/" + revision; is_folder(path)) return path;
  } else if (const auto all = folder_entries(folder + "/snapshots"); all.size() == 1) {
    return all.front();
  }
  throw Error(ErrorCode::io,
              fmt::format("{}: it has no refs/{}, and no single snapshot to take", folder, shown(wanted)));
}

std::string hub_snapshot(const std::string& repository, const std::string& revision) {
  const std::string cache = hugging_face_cache();
  if (cache.empty()) return {};
  std::string name = repository;
  if (const size_t slash = name.find('/'); slash != std::string::npos) name.replace(slash, 1, "--");
  const std::string folder = cache + "/" + std::string(kPrefix) + name;
  return is_folder(folder) ? snapshot_of_folder(folder, revision) : std::string();
}

std::string hub_name_of(const std::string& path) {
  std::error_code ignored;
  for (const fs::path& part : fs::absolute(path, ignored)) {
    std::string name = part.string();
    if (!name.starts_with(kPrefix)) continue;
    name.erase(0, kPrefix.size());
    if (const size_t gap = name.find("--"); gap != std::string::npos)
      return name.substr(0, gap) + '/' + name.substr(gap + 2);
  }
  return {};
}

std::vector<std::string> hub_snapshots_with(const std::string& text) {
  std::vector<std::string> out;
  const std::string cache = hugging_face_cache();
  if (cache.empty() || !is_folder(cache)) return out;
  for (const std::string& folder : folder_entries(cache)) {
    const std::string name = last_name(folder);
    if (!name.starts_with(kPrefix) || lower(name).find(lower(text)) == std::string::npos) continue;
    try {
      if (std::string snapshot = snapshot_of_folder(folder, ""); !snapshot.empty()) out.push_back(snapshot);
    } catch (const Error&) {  // a repository that is half there is of no use here
    }
  }
  return out;
}

std::string located(const std::string& name) {
  if (is_there(name)) {
    const std::string snapshot = is_folder(name) ? snapshot_of_folder(name, "") : std::string();
    return snapshot.empty() ? name : snapshot;
  }
  const HubName hub = parse_hub_name(name);
  if (hub.name.empty()) return name;
  const std::string snapshot = hub_snapshot(hub.name, hub.revision);
  if (snapshot.empty()) return name;
  const std::string path = hub.file.empty() ? snapshot : snapshot + "/" + hub.file;
  if (is_there(path)) return path;
  throw Error(ErrorCode::io, fmt::format("{} has no {}: {} brings it", snapshot, shown(hub.file),
                                         hub_download(hub.name, hub.file)));
}

std::string hub_download(const std::string& repository, const std::string& include) {
  return fmt::format("hf download {}{}", repository,
                     include.empty() ? "" : fmt::format(" --include \"{}\"", include));
}

}  // namespace vkflux::io
