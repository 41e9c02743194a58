// A folder of pictures with captions: every NAME.png, .jpg, .jpeg or .webp that has a NAME.txt beside it, at
// any depth. The first line of the text is the caption, further lines are other ways to say it. An optional
// index.json adds groups and splits.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/augment.h"
#include "train/data/remarks.h"
#include "train/rng.h"

namespace vkflux {

struct DatasetItem {
  std::string key;                    // path of the picture inside the folder, without its extension
  std::string file;                   // the same with it
  std::vector<std::string> captions;  // at least one; the first is the name
  std::string group, subgroup, version;
  std::vector<std::string> splits;
  bool tintable = false;

  const std::string& name() const { return captions.front(); }
  bool in(std::string_view split) const;
};

class Dataset {
 public:
  /// Reads every caption, and of every picture the headers. Items in the order of index.json, without one in
  /// the order of their paths; folders that links lead to are read too, each folder once. Where no item is in
  /// a split, every tenth by the hash of its key is in "test", the others are in "train" (all of them where
  /// none would be left). ErrorCode::format names the file that is wrong; ErrorCode::io when the folder can't
  /// be read.
  static Dataset open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const std::vector<DatasetItem>& items() const { return items_; }
  /// What of the folder isn't used, and what is done to pictures that aren't plain.
  const Remarks& remarks() const { return remarks_; }

  /// Indices of the items in a split, "all" being every item. ErrorCode::invalid_argument lists the splits
  /// there are.
  std::vector<size_t> split(std::string_view name) const;
  /// The first of these names that is a split with items; "all" when none is.
  std::string first_split(const std::vector<std::string>& names) const;

  /// Decodes these pictures and lets them go. ErrorCode::format names the first that is damaged.
  void check_pictures(const std::vector<size_t>& indices) const;

  /// The picture as premultiplied RGBA floats, upright, read from its file; with `size` > 0 its middle
  /// square, resampled to size x size where it isn't of that size already.
  RgbaImage image(size_t index, int size = 0) const;

 private:
  void make_splits();

  std::filesystem::path folder_;
  std::vector<DatasetItem> items_;
  Remarks remarks_;
};

/// A permutation of 0..n-1 for one pass over the data; a function of its arguments only.
std::vector<size_t> epoch_order(size_t n, uint64_t seed, uint32_t stream, uint32_t epoch);

struct TintColor {
  std::string_view name;
  Rgb color;
};
inline constexpr std::array<TintColor, 6> kTintColors{{{"red", {220 / 255.f, 40 / 255.f, 40 / 255.f}},
                                                       {"orange", {245 / 255.f, 140 / 255.f, 30 / 255.f}},
                                                       {"yellow", {250 / 255.f, 215 / 255.f, 50 / 255.f}},
                                                       {"green", {60 / 255.f, 170 / 255.f, 70 / 255.f}},
                                                       {"blue", {50 / 255.f, 110 / 255.f, 220 / 255.f}},
                                                       {"purple", {150 / 255.f, 70 / 255.f, 200 / 255.f}}}};

/// A fifth of the (item, colour) pairs are never trained, so that composing can be told from recalling.
bool tint_held_out(const DatasetItem& item, size_t color);

/// Shares of the kinds of caption; what remains is the name. All in [0, 1], sum at most 1.
struct CaptionMix {
  float variants = 0.03f;  // one of the further lines
  float colored = 0.08f;   // "blue dog face", with the picture tinted; tintable items only
  float empty = 0.06f;     // for classifier-free guidance
};

/// Every text that sample_caption() may draw of an item.
std::vector<std::string> possible_captions(const DatasetItem& item, const CaptionMix& mix);

struct CaptionSample {
  std::string text;
  int color = -1;  // index into kTintColors that the picture has to be tinted with, or -1
};

/// Draws a caption. Items without further lines, or not tintable, give their name where those would be drawn.
CaptionSample sample_caption(const DatasetItem& item, const CaptionMix& mix, Rng& rng);

}  // namespace vkflux
