#include "train/data/folder_scan.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxItems = 10'000'000;

std::string lower_extension(const fs::path& file) {
  std::string out = file.extension().string();
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

template <size_t N>
bool any_of(const std::array<std::string_view, N>& list, std::string_view text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

class Scan {
 public:
  Scan(const fs::path& root, Remarks& remarks) : root_(root), remarks_(remarks) {}

  std::vector<std::string> run() {
    enter(root_, "");
    // Links last, so that a folder in here goes by its own name and not by that of a link to it.
    for (size_t i = 0; i < links_.size(); ++i) {
      if (!enter(root_ / links_[i], links_[i])) {
        remarks_.add("left out, links to folders that are read already", links_[i].generic_string());
      }
    }
    for (const std::string& text : texts_) remarks_.add("left out, captions without a picture", text);
    std::sort(files_.begin(), files_.end());
    return std::move(files_);
  }

 private:
  /// False: was here already.
  bool enter(const fs::path& folder, const fs::path& name) {
    struct stat info {};
    if (::stat(folder.c_str(), &info) == 0 && !seen_.emplace(info.st_dev, info.st_ino).second) return false;
    std::error_code error;
    std::vector<fs::directory_entry> entries;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
      entries.push_back(*it);
    if (error)
      throw Error(ErrorCode::io, fmt::format("{}: cannot list: {}", folder.string(), error.message()));
    std::sort(entries.begin(), entries.end());
    std::set<fs::path> used;
    for (const fs::directory_entry& entry : entries) look_at(entry, name / entry.path().filename(), used);
    for (const fs::directory_entry& entry : entries) {
      const fs::path inside = name / entry.path().filename();
      std::error_code ignored;
      if (lower_extension(inside) == ".txt" && !used.count(entry.path()) && entry.is_regular_file(ignored) &&
          !inside.filename().string().starts_with('.')) {
        texts_.push_back(inside.generic_string());
      }
    }
    return true;
  }

  void look_at(const fs::directory_entry& entry, const fs::path& name, std::set<fs::path>& used) {
    std::error_code error;
    const bool link = fs::is_symlink(entry.symlink_status(error));
    const fs::file_status status = entry.status(error);
    const std::string shown = name.generic_string();
    if (entry.path().filename().string().starts_with('.')) {
      remarks_.add("left out, hidden files and folders", shown);
    } else if (!fs::exists(status)) {
      remarks_.add("left out, links that lead nowhere", shown);
    } else if (fs::is_directory(status)) {
      if (name == "tokenizer" || name == "tokenizer_2") return;
      if (link) {
        links_.push_back(name);
      } else {
        enter(entry.path(), name);
      }
    } else if (!has_picture_name(name)) {
      constexpr std::array<std::string_view, 10> kOthers{".gif",  ".bmp",  ".tif", ".tiff", ".avif",
                                                         ".heic", ".heif", ".jxl", ".jp2",  ".svg"};
      if (any_of(kOthers, lower_extension(name)))
        remarks_.add("left out, pictures in a format that isn't read (PNG, JPEG and WebP are)", shown);
    } else if (!fs::is_regular_file(status)) {
      remarks_.add("left out, what has a picture's name and is no file", shown);
    } else if (const auto caption = caption_of(entry.path())) {
      used.insert(*caption);
      files_.push_back(shown);
      if (files_.size() > kMaxItems)
        throw Error(ErrorCode::format, fmt::format("{}: over {} pictures", root_.string(), kMaxItems));
    } else {
      remarks_.add("left out, pictures without a caption (NAME.txt beside NAME.png)", shown);
    }
  }

  fs::path root_;
  Remarks& remarks_;
  std::set<std::pair<dev_t, ino_t>> seen_;
  std::vector<fs::path> links_;
  std::vector<std::string> files_, texts_;
};

}  // namespace

bool has_picture_name(const fs::path& file) {
  constexpr std::array<std::string_view, 4> kRead{".png", ".jpg", ".jpeg", ".webp"};
  return any_of(kRead, lower_extension(file));
}

std::optional<fs::path> caption_of(const fs::path& picture) {
  for (const char* extension : {".txt", ".TXT", ".Txt"}) {
    fs::path caption = fs::path(picture).replace_extension(extension);
    std::error_code ignored;
    if (fs::exists(caption, ignored)) return caption;
  }
  return {};
}

std::vector<std::string> scan_folder(const fs::path& folder, Remarks& remarks) {
  return Scan(folder, remarks).run();
}

}  // namespace vkflux
