#include "train/data/dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = size_t{256} << 20;
constexpr size_t kMaxCaptionBytes = size_t{1} << 16;
constexpr size_t kMaxItems = 10'000'000;
constexpr uint32_t kTintStream = 0x74696E74;  // an address of its own for the held-out pairs

std::vector<std::string> read_captions(const fs::path& path) {
  const std::string text = io::read_file(path.string(), kMaxCaptionBytes);
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(std::move(line));
    at = end + 1;
  }
  if (lines.empty()) {
    throw Error(ErrorCode::format,
                fmt::format("{}: no caption; the first line must hold one", path.string()));
  }
  return lines;
}

fs::path caption_path(const fs::path& picture) {
  return fs::path(picture).replace_extension(".txt");
}

DatasetItem make_item(const fs::path& folder, const std::string& file) {
  DatasetItem item;
  item.file = file;
  item.key = fs::path(file).replace_extension().generic_string();
  item.captions = read_captions(caption_path(folder / file));
  return item;
}

std::vector<DatasetItem> scan(const fs::path& folder) {
  std::error_code error;
  std::vector<std::string> files;
  for (fs::recursive_directory_iterator it(folder, error), end; it != end && !error; it.increment(error)) {
    if (it->path().extension() != ".png" || !fs::exists(caption_path(it->path()))) continue;
    files.push_back(it->path().lexically_relative(folder).generic_string());
    if (files.size() > kMaxItems)
      throw Error(ErrorCode::format, fmt::format("{}: over {} pictures", folder.string(), kMaxItems));
  }
  if (error) throw Error(ErrorCode::io, fmt::format("{}: cannot list: {}", folder.string(), error.message()));
  std::sort(files.begin(), files.end());
  std::vector<DatasetItem> items;
  for (const std::string& file : files) items.push_back(make_item(folder, file));
  return items;
}

/// Relative, without "..": an index must not reach out of its folder.
bool stays_inside(const fs::path& file) {
  return !file.empty() && file.is_relative() && std::find(file.begin(), file.end(), "..") == file.end() &&
         file.extension() == ".png";
}

DatasetItem indexed_item(const fs::path& folder, const nlohmann::json& entry) {
  const std::string file = entry.at("file").get<std::string>();
  if (!stays_inside(file)) {
    throw Error(ErrorCode::format,
                fmt::format("file \"{}\": expected the path of a .png inside the data set", file));
  }
  DatasetItem item = make_item(folder, file);
  item.group = entry.value("group", "");
  item.subgroup = entry.value("subgroup", "");
  item.version = entry.value("version", "");
  item.tintable = entry.value("tintable", false);
  item.splits = entry.value("splits", std::vector<std::string>{});
  return item;
}

std::vector<DatasetItem> read_index(const fs::path& folder) {
  const fs::path path = folder / "index.json";
  const std::string text = io::read_file(path.string(), kMaxIndexBytes);
  const ErrorContext context(path.string());
  std::vector<DatasetItem> items;
  std::set<std::string> keys;
  try {
    const auto index = io::parse_sorted_json(text, "index");
    const auto& entries = index.at("items");
    if (!entries.is_array() || entries.size() > kMaxItems) {
      throw Error(ErrorCode::format,
                  fmt::format("\"items\" must be an array of at most {} entries", kMaxItems));
    }
    for (const auto& entry : entries) {
      items.push_back(indexed_item(folder, entry));
      if (!keys.insert(items.back().key).second) {
        throw Error(ErrorCode::format, fmt::format("file \"{}\" is listed twice", items.back().file));
      }
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::format, fmt::format("not a data set index: {}", error.what()));
  }
  return items;
}

}  // namespace

bool DatasetItem::in(std::string_view split) const {
  return split == "all" || std::find(splits.begin(), splits.end(), split) != splits.end();
}

Dataset Dataset::open(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(ErrorCode::io,
                fmt::format("{}: not a folder; expected one with pictures and captions", folder.string()));
  }
  Dataset set;
  set.folder_ = folder;
  set.items_ = fs::exists(folder / "index.json", ignored) ? read_index(folder) : scan(folder);
  if (set.items_.empty()) {
    throw Error(ErrorCode::format, fmt::format("{}: no NAME.png with a NAME.txt beside it", folder.string()));
  }
  return set;
}

std::vector<size_t> Dataset::split(std::string_view name) const {
  std::vector<size_t> out;
  std::set<std::string> known{"all"};
  for (size_t i = 0; i < items_.size(); ++i) {
    if (items_[i].in(name)) out.push_back(i);
    known.insert(items_[i].splits.begin(), items_[i].splits.end());
  }
  if (out.empty()) {
    throw Error(ErrorCode::invalid_argument, fmt::format("{}: no split \"{}\"; there are: {}",
                                                         folder_.string(), name, fmt::join(known, ", ")));
  }
  return out;
}

RgbaImage Dataset::image(size_t index, int size) const {
  const io::Image8 raw = io::read_png((folder_ / items_.at(index).file).string());
  RgbaImage image = from_straight_rgba8(raw.rgba, raw.width, raw.height);
  if (size <= 0) return image;
  if (image.width != image.height) image = center_crop_square(image);
  if (image.width != size) image = resize_lanczos(image, size, size);
  return image;
}

std::vector<size_t> epoch_order(size_t n, uint64_t seed, uint32_t stream, uint32_t epoch) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  Rng rng(seed, stream, epoch);
  for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[rng.below(static_cast<uint32_t>(i))]);
  return order;
}

bool tint_held_out(const DatasetItem& item, size_t color) {
  uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a
  for (unsigned char c : item.key) hash = (hash ^ c) * 0x100000001B3u;
  return Rng(hash, kTintStream, 0, static_cast<uint32_t>(color)).below(5) == 0;
}

CaptionSample sample_caption(const DatasetItem& item, const CaptionMix& mix, Rng& rng) {
  const float kind = rng.uniform();
  const uint32_t choice = rng.next();
  const auto pick = [&](size_t n) { return static_cast<size_t>((uint64_t{choice} * n) >> 32); };
  if (kind < mix.empty) return {};
  if (kind < mix.empty + mix.variants) {
    return {item.captions.size() > 1 ? item.captions[1 + pick(item.captions.size() - 1)] : item.name()};
  }
  if (kind < mix.empty + mix.variants + mix.colored && item.tintable) {
    std::vector<size_t> colors;
    for (size_t c = 0; c < kTintColors.size(); ++c) {
      if (!tint_held_out(item, c)) colors.push_back(c);
    }
    if (!colors.empty()) {
      const size_t color = colors[pick(colors.size())];
      return {fmt::format("{} {}", kTintColors[color].name, item.name()), static_cast<int>(color)};
    }
  }
  return {item.name()};
}

}  // namespace vkflux
