#include "train/data/emoji_dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "train/data/emoji_font.h"
#include "train/data/emoji_list.h"
#include "train/data/files.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxSourceBytes = size_t{64} << 20;
constexpr int kMaxSize = 1024;
constexpr size_t kMaxSharers = 16;  // a keyword of more emoji than this ("face") names no picture

std::vector<uint8_t> read_source(const fs::path& path, std::string_view package) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    throw Error(ErrorCode::io, fmt::format("{}: not found; install the package {} or name the file",
                                           path.string(), package));
  }
  return read_bytes(path, kMaxSourceBytes);
}

std::string as_text(const std::vector<uint8_t>& bytes) {
  return {bytes.begin(), bytes.end()};
}

/// Captions per emoji: the name, then those of its keywords that few share, each once.
std::vector<std::vector<std::string>> make_captions(const std::vector<Emoji>& list,
                                                    const Annotations& annotations) {
  std::vector<std::vector<std::string>> captions;
  std::map<std::string, size_t> sharers;
  for (const Emoji& emoji : list) {
    std::vector<std::string> lines{caption_text(emoji.name)};
    const auto found = annotations.find(to_utf8(emoji.codepoints));
    if (found != annotations.end()) {
      for (const std::string& keyword : found->second) {
        std::string text = caption_text(keyword);
        if (!text.empty() && std::find(lines.begin(), lines.end(), text) == lines.end())
          lines.push_back(std::move(text));
      }
    }
    for (const std::string& line : lines) ++sharers[line];
    captions.push_back(std::move(lines));
  }
  for (auto& lines : captions) {
    const auto shared = [&](const std::string& line) { return sharers[line] > kMaxSharers; };
    lines.erase(std::remove_if(lines.begin() + 1, lines.end(), shared), lines.end());
  }
  return captions;
}

std::vector<std::string> splits_of(const Emoji& emoji) {
  if (!in_autoencoder_set(emoji)) return {"unseen"};
  std::vector<std::string> splits{"autoencoder"};
  if (in_s775(emoji)) splits.emplace_back("s775");
  if (in_s493(emoji)) splits.emplace_back("s493");
  return splits;
}

nlohmann::ordered_json index_entry(const Emoji& emoji, const std::string& file, const std::string& caption) {
  return {{"file", file},
          {"name", caption},
          {"group", emoji.group},
          {"subgroup", emoji.subgroup},
          {"version", fmt::format("{}.{}", emoji.version.major, emoji.version.minor)},
          {"tintable", is_tintable(emoji)},
          {"splits", splits_of(emoji)}};
}

void write_item(const fs::path& picture, const RgbaImage& glyph, int size,
                const std::vector<std::string>& captions) {
  const RgbaImage image = resize_lanczos(padded_to_square(glyph), size, size);
  write_png_rgba8(picture, {image.width, image.height, to_straight_rgba8(image)});
  write_text(fs::path(picture).replace_extension(".txt"), fmt::format("{}\n", fmt::join(captions, "\n")));
}

void count(EmojiDatasetReport& report, const Emoji& emoji) {
  ++report.items;
  report.autoencoder += in_autoencoder_set(emoji) ? 1u : 0u;
  report.unseen += in_autoencoder_set(emoji) ? 0u : 1u;
  report.s775 += in_s775(emoji) ? 1u : 0u;
  report.s493 += in_s493(emoji) ? 1u : 0u;
}

}  // namespace

EmojiDatasetReport write_emoji_dataset(const EmojiDatasetOptions& options) {
  if (options.size < 8 || options.size > kMaxSize) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("picture size {}: expected 8 to {} pixels", options.size, kMaxSize));
  }
  const std::string emoji_text = as_text(read_source(options.emoji_test, "unicode-data"));
  const std::vector<Emoji> list = parse_emoji_test(emoji_text);
  const auto captions =
      make_captions(list, parse_annotations(as_text(read_source(options.annotations, "unicode-cldr-core"))));
  const EmojiFont font(read_source(options.font, "fonts-noto-color-emoji"));

  std::error_code error;
  fs::create_directories(options.out / "images", error);
  if (error)
    throw Error(ErrorCode::io, fmt::format("{}: cannot create: {}", options.out.string(), error.message()));
  EmojiDatasetReport report;
  auto entries = nlohmann::ordered_json::array();
  for (size_t i = 0; i < list.size(); ++i) {
    if (const auto glyph = font.render(list[i].codepoints)) {
      const std::string file = fmt::format("images/{}.png", list[i].key());
      write_item(options.out / file, *glyph, options.size, captions[i]);
      entries.push_back(index_entry(list[i], file, captions[i].front()));
      count(report, list[i]);
    }
    if (options.progress) options.progress(i + 1, list.size());
  }
  const nlohmann::ordered_json index{
      {"size", options.size},
      {"source",
       {{"font", font.family()},
        {"font_version", font.version()},
        {"font_licence", font.licence()},
        {"names", fmt::format("Unicode emoji-test.txt {}", emoji_test_version(emoji_text))},
        {"keywords", "Unicode CLDR annotations, en"}}},
      {"items", std::move(entries)}};
  write_text(options.out / "index.json", index.dump(1) + "\n");
  return report;
}

}  // namespace vkflux
