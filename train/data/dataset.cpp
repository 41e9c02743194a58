#include "train/data/dataset.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/picture.h"
#include "model/io/text.h"
#include "model/text/characters.h"
#include "train/data/folder_scan.h"
#include "vk/error.h"
#include "vk/interrupt.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxIndexBytes = size_t{256} << 20;
constexpr size_t kMaxCaptionBytes = size_t{1} << 16;
constexpr size_t kMaxItems = 10'000'000;
// Addresses of their own for what is held out.
constexpr uint32_t kTintStream = 0x74696E74, kSplitStream = 0x73706C69;

uint64_t hash_of(std::string_view text) {  // FNV-1a
  uint64_t hash = 0xCBF29CE484222325u;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001B3u;
  return hash;
}

std::vector<std::string> read_captions(const fs::path& path) {
  std::vector<std::string> lines;
  for (const std::string& line : io::split_lines(io::read_text(path.string(), kMaxCaptionBytes))) {
    if (const std::string_view text = trim(line); !text.empty()) lines.emplace_back(text);
  }
  if (lines.empty()) {
    throw Error(ErrorCode::format,
                fmt::format("{}: no caption; the first line must hold one", path.string()));
  }
  return lines;
}

DatasetItem make_item(const fs::path& folder, const std::string& file, Remarks& remarks) {
  check_interrupted("opening the data set");
  DatasetItem item;
  item.file = file;
  item.key = fs::path(file).replace_extension().generic_string();
  const fs::path picture = folder / file;
  item.captions = read_captions(caption_of(picture).value_or(fs::path(picture).replace_extension(".txt")));
  const auto facts =
      io::probe_picture(io::read_file(picture.string(), io::kMaxPictureFile), picture.string());
  remark_picture(facts, file, remarks);
  if (facts.width != facts.height) remarks.add("not square: the middle square is used", file);
  return item;
}

/// Relative, without "..": an index must not reach out of its folder.
bool stays_inside(const fs::path& file) {
  return !file.empty() && file.is_relative() && std::find(file.begin(), file.end(), "..") == file.end() &&
         has_picture_name(file) && file.native().find('\0') == std::string::npos;
}

DatasetItem indexed_item(const fs::path& folder, const nlohmann::json& entry, Remarks& remarks) {
  const std::string file = entry.at("file").get<std::string>();
  if (!stays_inside(file)) {
    throw Error(
        ErrorCode::format,
        fmt::format("file \"{}\": expected the path of a .png, .jpg, .jpeg or .webp inside the data set",
                    file));
  }
  DatasetItem item = make_item(folder, file, remarks);
  item.group = entry.value("group", "");
  item.subgroup = entry.value("subgroup", "");
  item.version = entry.value("version", "");
  item.tintable = entry.value("tintable", false);
  item.splits = entry.value("splits", std::vector<std::string>{});
  return item;
}

std::vector<DatasetItem> read_index(const fs::path& folder, Remarks& remarks) {
  const fs::path path = folder / "index.json";
  const std::string text = io::read_text(path.string(), kMaxIndexBytes);
  const ErrorContext context(path.string());
  std::vector<DatasetItem> items;
  std::set<std::string> files;
  try {
    const auto index = io::parse_sorted_json(text, "index");
    const auto& entries = index.at("items");
    if (!entries.is_array() || entries.size() > kMaxItems) {
      throw Error(ErrorCode::format,
                  fmt::format("\"items\" must be an array of at most {} entries", kMaxItems));
    }
    for (const auto& entry : entries) {
      items.push_back(indexed_item(folder, entry, remarks));
      if (!files.insert(items.back().file).second) {
        throw Error(ErrorCode::format, fmt::format("file \"{}\" is listed twice", items.back().file));
      }
    }
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::format, fmt::format("not a data set index: {}", error.what()));
  }
  return items;
}

std::string tinted_caption(const DatasetItem& item, size_t color) {
  return fmt::format("{} {}", kTintColors[color].name, item.name());
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
  if (fs::exists(folder / "index.json", ignored)) {
    set.items_ = read_index(folder, set.remarks_);
  } else {
    for (const std::string& file : scan_folder(folder, set.remarks_))
      set.items_.push_back(make_item(folder, file, set.remarks_));
  }
  if (set.items_.empty()) {
    std::string message =
        fmt::format("{}: no NAME.png, .jpg, .jpeg or .webp with a NAME.txt beside it", folder.string());
    for (const std::string& sentence : set.remarks_.sentences()) message += "; " + sentence;
    throw Error(ErrorCode::format, message);
  }
  set.make_splits();
  return set;
}

void Dataset::make_splits() {
  constexpr uint32_t kShare = 10;
  if (std::any_of(items_.begin(), items_.end(), [](const DatasetItem& item) { return !item.splits.empty(); }))
    return;
  const auto held_out = [](const DatasetItem& item) {
    return Rng(hash_of(item.key), kSplitStream).below(kShare) == 0;
  };
  const bool all = std::all_of(items_.begin(), items_.end(), held_out);
  for (DatasetItem& item : items_) {
    item.splits = {!all && held_out(item) ? "test" : "train"};
    remarks_.add(fmt::format("without a split, by the hash of their names in \"{}\"", item.splits.front()),
                 item.file);
  }
}

std::string Dataset::first_split(const std::vector<std::string>& names) const {
  for (const std::string& name : names) {
    if (std::any_of(items_.begin(), items_.end(), [&](const DatasetItem& item) { return item.in(name); }))
      return name;
  }
  return "all";
}

void Dataset::check_pictures(const std::vector<size_t>& indices) const {
  for (const size_t i : indices) {
    check_interrupted("checking the pictures");
    io::read_picture((folder_ / items_.at(i).file).string());
  }
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
  const io::Image8 image = io::read_picture((folder_ / items_.at(index).file).string()).image;
  return size > 0 ? fitted(image, size, size) : from_straight_rgba8(image.rgba, image.width, image.height);
}

std::vector<size_t> epoch_order(size_t n, uint64_t seed, uint32_t stream, uint32_t epoch) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  Rng rng(seed, stream, epoch);
  for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[rng.below(static_cast<uint32_t>(i))]);
  return order;
}

bool tint_held_out(const DatasetItem& item, size_t color) {
  return Rng(hash_of(item.key), kTintStream, 0, static_cast<uint32_t>(color)).below(5) == 0;
}

std::vector<std::string> possible_captions(const DatasetItem& item, const CaptionMix& mix) {
  std::vector<std::string> out{item.name()};
  if (mix.variants > 0) out = item.captions;
  for (size_t c = 0; mix.colored > 0 && item.tintable && c < kTintColors.size(); ++c) {
    if (!tint_held_out(item, c)) out.push_back(tinted_caption(item, c));
  }
  return out;
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
      return {tinted_caption(item, color), static_cast<int>(color)};
    }
  }
  return {item.name()};
}

}  // namespace vkflux
