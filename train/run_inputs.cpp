#include "train/run_inputs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>
#include <zlib.h>

#include <algorithm>
#include <filesystem>

#include "train/checkpoint.h"
#include "vk/error.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr const char* kInputs = "inputs";
constexpr const char* kAccepted = "accepted_changes";
constexpr size_t kMostNamed = 16;  // differences in a message
constexpr size_t kPiece = size_t{4} << 20;

/// A file by its place inside what the caller named.
struct NamedFile {
  std::string name, path;
};

// What loaders read: configurations, tensors, vocabularies. A README or a picture beside them is no input.
void add_folder(const fs::path& folder, const std::string& prefix, std::vector<NamedFile>& out) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; it != end && !error; it.increment(error)) {
    const std::string extension = it->path().extension().string();
    const bool read =
        extension == ".json" || extension == ".safetensors" || extension == ".txt" || extension == ".model";
    std::error_code ignored;
    if (read && it->is_regular_file(ignored))
      out.push_back({prefix + it->path().filename().string(), it->path().string()});
  }
  if (error) throw Error(ErrorCode::io, fmt::format("{}: can't list: {}", folder.string(), error.message()));
}

std::vector<NamedFile> files_of(const std::string& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return {};
  std::vector<NamedFile> out;
  if (!fs::is_directory(path, ignored)) return {{"", path}};
  const fs::path folder(path), index = folder / "model_index.json";
  if (!fs::exists(index, ignored)) {
    add_folder(folder, "", out);
  } else {
    out.push_back({"model_index.json", index.string()});
    const io::Json parts = io::read_json(index.string());
    for (const auto& [part, type] : parts.items()) {
      if (type.is_array() && fs::is_directory(folder / part, ignored))
        add_folder(folder / part, part + "/", out);
    }
  }
  std::sort(out.begin(), out.end(), [](const NamedFile& a, const NamedFile& b) { return a.name < b.name; });
  return out;
}

std::string canonical(const std::string& path) {
  std::error_code ignored;
  return fs::weakly_canonical(path, ignored).string();
}

std::string text_of(const io::Json& value) {
  return io::json_text(value);
}

// Files may say anything.
std::string shown(const io::Json& value) {
  if (value.is_null()) return "absent";
  return io::shown(value.is_string() ? value.get<std::string>() : text_of(value));
}

io::Json entry(const io::Json& entries, const std::string& name) {
  const auto it = entries.find(name);
  return it == entries.end() ? io::Json(nullptr) : *it;
}

io::Json parsed(const io::SafetensorsFile& file, const char* key, io::Json::value_t type) {
  io::Json value = io::parse_json(metadata_of(file, key), fmt::format("metadata \"{}\"", key));
  if (value.type() == type) return value;
  throw Error(ErrorCode::format, fmt::format("metadata \"{}\" is damaged", key));
}

}  // namespace

void Checksum::add(std::span<const std::byte> bytes) {
  value_ = static_cast<uint32_t>(
      crc32_z(value_, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<z_size_t>(bytes.size())));
}

void Checksum::add(std::string_view text) {
  const uint64_t size = text.size();
  add(std::as_bytes(std::span(&size, 1)));
  add(std::as_bytes(std::span(text.data(), text.size())));
}

uint64_t Checksum::add_file(const std::string& path) {
  const io::ReadFile file(path);
  std::vector<std::byte> piece(std::min<uint64_t>(kPiece, file.size()));
  for (uint64_t at = 0; at < file.size(); at += piece.size()) {
    check_interrupted("reading the inputs");
    piece.resize(std::min<uint64_t>(kPiece, file.size() - at));
    file.read(at, piece);
    add(piece);
  }
  return file.size();
}

std::string Checksum::text() const {
  return fmt::format("{:08x}", value_);
}

void RunInputs::set_texts(const std::string& name, const std::vector<std::string>& texts) {
  Checksum sum;
  for (const std::string& text : texts) sum.add(text);
  set(name, fmt::format("{} texts, checksum {}", texts.size(), sum.text()));
}

void RunInputs::set_files(const std::string& name, const std::vector<std::string>& paths) {
  Checksum sum;
  size_t count = 0;
  uint64_t bytes = 0;
  for (const std::string& path : paths) {
    for (const NamedFile& file : files_of(path)) {
      sum.add(file.name);
      bytes += sum.add_file(file.path);
      files_.insert(canonical(file.path));
      ++count;
    }
  }
  if (count > 0) set(name, fmt::format("{} bytes in {} files, checksum {}", bytes, count, sum.text()));
}

bool RunInputs::reads(const std::string& path) const {
  return files_.count(canonical(path)) != 0;
}

void RunInputs::set_items(const Dataset& data, const std::vector<size_t>& items) {
  Checksum pictures, captions;
  uint64_t bytes = 0;
  for (const size_t i : items) {
    const DatasetItem& item = data.items()[i];
    pictures.add(item.key);
    bytes += pictures.add_file((data.folder() / item.file).string());
    captions.add(item.tintable ? "tintable" : "");
    captions.add(std::to_string(item.captions.size()));
    for (const std::string& text : item.captions) captions.add(text);
  }
  set("pictures", fmt::format("{} bytes in {} pictures, checksum {}", bytes, items.size(), pictures.text()));
  set("captions", fmt::format("those of {} pictures, checksum {}", items.size(), captions.text()));
}

void RunInputs::accept_changes(const std::vector<std::string>& names) {
  acceptable_.insert(acceptable_.end(), names.begin(), names.end());
}

std::vector<std::string> RunInputs::check(const io::SafetensorsFile& checkpoint) {
  if (metadata_of(checkpoint, kInputs).empty()) {
    spdlog::warn(
        "{}: made before checkpoints held what a run is made from: whether its data and settings are those "
        "of "
        "this run isn't known",
        checkpoint.path());
    return {};
  }
  const io::Json before = parsed(checkpoint, kInputs, io::Json::value_t::object);
  io::Json history = metadata_of(checkpoint, kAccepted).empty()
                         ? io::Json::array()
                         : parsed(checkpoint, kAccepted, io::Json::value_t::array);
  std::vector<std::string> names, refused, accepted, said;
  for (const auto& [name, value] : before.items()) names.push_back(name);
  for (const auto& [name, value] : entries_.items()) {
    if (!before.contains(name)) names.push_back(name);
  }
  for (const std::string& name : names) {
    const io::Json from = entry(before, name), to = entry(entries_, name);
    if (from == to) continue;
    const bool fine =
        accept_all_ || std::find(acceptable_.begin(), acceptable_.end(), name) != acceptable_.end();
    if (!fine) {
      refused.push_back(
          fmt::format("{} is {} in the file and {} in this run", io::shown(name), shown(from), shown(to)));
      continue;
    }
    accepted.push_back(name);
    history.push_back({{"name", name}, {"from", from}, {"to", to}});
    said.push_back(fmt::format("{} was {} and is {} from now on, as asked for", io::shown(name), shown(from),
                               shown(to)));
  }
  if (refused.empty()) {
    for (const std::string& line : said) spdlog::warn("{}", line);
    accepted_ = std::move(history);
    changed_ = !accepted.empty();
    return accepted;
  }
  if (refused.size() > kMostNamed) {
    const size_t more = refused.size() - kMostNamed;
    refused.resize(kMostNamed);
    refused.push_back(fmt::format("and {} more", more));
  }
  throw Error(
      ErrorCode::invalid_argument,
      fmt::format("the checkpoint was made from other inputs or settings: {}; give what it was made from, "
                  "another --out folder, --fresh to start over, or --accept-changed-inputs to go on all the "
                  "same",
                  fmt::join(refused, "; ")));
}

void RunInputs::write(std::map<std::string, std::string>& metadata) const {
  metadata[kInputs] = text_of(entries_);
  if (!accepted_.empty()) metadata[kAccepted] = text_of(accepted_);
}

}  // namespace vkflux
