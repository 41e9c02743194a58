#include "model/part_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>

#include "model/io/file.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostFiles = 4000;

std::string canonical(const std::string& path) {
  std::error_code ignored;
  return fs::weakly_canonical(path, ignored).string();
}

bool may_hold_tensors(const std::string& name) {
  if (name.find("-of-0") != std::string::npos) return false;  // a shard: its index names it
  constexpr std::array<std::string_view, 4> kEnds{".safetensors", ".sft", ".gguf", ".safetensors.index.json"};
  return std::any_of(kEnds.begin(), kEnds.end(), [&](std::string_view end) { return name.ends_with(end); });
}

}  // namespace

void PartSearch::add_folder(const std::string& folder, int depth) {
  if (!io::is_folder(folder)) return;
  folders_.push_back(folder);
  std::error_code error;
  fs::recursive_directory_iterator it(folder, fs::directory_options::follow_directory_symlink, error), end;
  for (; it != end && !error && files_.size() < kMostFiles; it.increment(error)) {
    if (it.depth() >= depth) it.disable_recursion_pending();
    const std::string path = it->path().string();
    if (!may_hold_tensors(it->path().filename().string()) || io::is_folder(path) || !io::is_there(path))
      continue;
    if (canonical_.emplace(canonical(path), path).second) files_.push_back(path);
  }
  std::sort(files_.begin(), files_.end());
}

void PartSearch::leave_out(const std::string& path) {
  const std::string known = canonical(path);
  std::erase_if(files_, [&](const std::string& file) { return canonical(file) == known; });
  canonical_.emplace(known, path);
}

const io::TensorSource* PartSearch::open(const std::string& path) {
  const auto [it, fresh] = opened_.try_emplace(path);
  if (!fresh) return it->second.get();
  try {
    it->second = io::open_tensors(path);
  } catch (const Error& e) {
    unreadable_.push_back(e.what());
  }
  return it->second.get();
}

std::vector<PartSearch::Candidate> PartSearch::candidates(const PartKind& kind, const PartKind* without) {
  std::vector<Candidate> out;
  for (const std::string& path : files_) {
    const io::TensorSource* file = open(path);
    if (!file) continue;
    try {
      if (without && !described(*without, *file).is_null()) continue;
      io::Json config = described(kind, *file);
      if (!config.is_null()) out.push_back({path, std::move(config), has_word(path, kind.usual)});
    } catch (const Error& e) {
      unreadable_.push_back(fmt::format("{}: {}", path, e.what()));
    }
  }
  return out;
}

bool has_word(const std::string& path, const std::vector<std::string_view>& words) {
  std::string name = fs::path(path).filename().string();
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto letter = [&](size_t at) {
    return at < name.size() && std::isalnum(static_cast<unsigned char>(name[at])) != 0;
  };
  return std::any_of(words.begin(), words.end(), [&](std::string_view word) {
    for (size_t at = name.find(word); at != name.npos; at = name.find(word, at + 1)) {
      if (!(at > 0 && letter(at - 1)) && !letter(at + word.size())) return true;
    }
    return false;
  });
}

io::Json described(const PartKind& kind, const io::TensorSource& file) {
  const std::optional<io::Json> config = kind.kind.describe(file, io::Json());
  return config ? *config : io::Json();
}

}  // namespace vkflux
