#include "train/data/emoji_dataset.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <map>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/png.h"
#include "model/text/characters.h"
#include "train/data/dataset.h"
#include "train/data/emoji_font.h"
#include "train/data/emoji_list.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxSourceBytes = size_t{64} << 20;
constexpr int kMaxSize = 1024;
constexpr size_t kMaxSharers = 16;  // a keyword of more emoji than this ("face") names no picture

std::string read_source(const fs::path& path, std::string_view package) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    throw Error(ErrorCode::io, fmt::format("{}: not found; install the package {} or name the file",
                                           path.string(), package));
  }
  return io::read_file(path.string(), kMaxSourceBytes);
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

io::Json index_entry(const Emoji& emoji, const std::string& file, const std::string& caption) {
  return {{"file", file},
          {"name", caption},
          {"group", emoji.group},
          {"subgroup", emoji.subgroup},
          {"version", fmt::format("{}.{}", emoji.version.major, emoji.version.minor)},
          {"tintable", is_tintable(emoji)},
          {"splits", splits_of(emoji)}};
}

/// A folder filled under a temporary name, synced once (a sync per small file takes minutes on a busy disk)
/// and then renamed. Without commit() nothing of it stays.
class StagedFolder {
 public:
  explicit StagedFolder(const fs::path& target) : target_(target), staging_(target.string() + ".partial") {
    std::error_code error;
    fs::remove_all(staging_, error);
    if (!fs::create_directories(staging_, error)) {
      throw Error(ErrorCode::io, fmt::format("{}: cannot create: {}", staging_.string(), error.message()));
    }
  }
  ~StagedFolder() {
    std::error_code ignored;
    fs::remove_all(staging_, ignored);
  }
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  void write(const std::string& name, std::string_view contents) const {
    std::ofstream file(staging_ / name, std::ios::binary);
    file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
    file.close();
    if (!file) throw Error(ErrorCode::io, fmt::format("{}: cannot write {}", staging_.string(), name));
  }

  void commit() const {
    const int fd = ::open(staging_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = fd >= 0 && ::syncfs(fd) == 0;
    if (fd >= 0) ::close(fd);
    std::error_code error;
    fs::remove_all(target_, error);
    if (synced) fs::rename(staging_, target_, error);
    if (!synced || error) {
      throw Error(ErrorCode::io,
                  fmt::format("{}: cannot {} the folder", target_.string(), synced ? "replace" : "sync"));
    }
  }

 private:
  fs::path target_, staging_;
};

io::Image8 picture(const RgbaImage& glyph, int size) {
  const RgbaImage image = resize_lanczos(padded_to_square(glyph), size, size);
  return {image.width, image.height, to_straight_rgba8(image)};
}

/// Common names count most, so that their words become single tokens.
std::vector<TrainingText> tokenizer_texts(const std::vector<Emoji>& list,
                                          const std::vector<std::vector<std::string>>& captions) {
  constexpr int kCommonWeight = 20, kObjectWeight = 3, kColorWeight = 50;
  std::vector<TrainingText> texts;
  for (size_t i = 0; i < list.size(); ++i) {
    const bool object = in_autoencoder_set(list[i]);
    texts.push_back({captions[i].front(), in_s493(list[i]) ? kCommonWeight : object ? kObjectWeight : 1});
    for (size_t k = 1; object && k < captions[i].size(); ++k) texts.push_back({captions[i][k], 1});
  }
  for (const TintColor& color : kTintColors) texts.push_back({std::string(color.name), kColorWeight});
  return texts;
}

void make_tokenizers(const EmojiDatasetOptions& options, const std::vector<Emoji>& list,
                     const std::vector<std::vector<std::string>>& captions, EmojiDatasetReport& report) {
  const fs::path clip = options.out / "tokenizer", t5 = options.out / "tokenizer_2";
  write_tokenizers(options.out, tokenizer_texts(list, captions), options.tokenizers);
  std::vector<std::string> all, common;
  for (size_t i = 0; i < list.size(); ++i) {
    all.push_back(captions[i].front());
    if (in_s493(list[i])) common.push_back(captions[i].front());
  }
  const auto clip_tokenizer = load_clip_tokenizer(clip.string()),
             t5_tokenizer = load_t5_tokenizer(t5.string());
  report.clip = token_lengths(*clip_tokenizer, all);
  report.clip_s493 = token_lengths(*clip_tokenizer, common);
  report.t5 = token_lengths(*t5_tokenizer, all);
  report.t5_s493 = token_lengths(*t5_tokenizer, common);
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
  const std::string emoji_text = read_source(options.emoji_test, "unicode-data");
  const std::vector<Emoji> list = parse_emoji_test(emoji_text);
  const auto captions =
      make_captions(list, parse_annotations(read_source(options.annotations, "unicode-cldr-core")));
  const EmojiFont font(read_source(options.font, "fonts-noto-color-emoji"));

  const StagedFolder images(options.out / "images");
  EmojiDatasetReport report;
  auto entries = io::Json::array();
  for (size_t i = 0; i < list.size(); ++i) {
    if (const auto glyph = font.render(list[i].codepoints)) {
      const std::string key = list[i].key();
      images.write(key + ".png", io::encode_png(picture(*glyph, options.size)));
      images.write(key + ".txt", fmt::format("{}\n", fmt::join(captions[i], "\n")));
      entries.push_back(index_entry(list[i], fmt::format("images/{}.png", key), captions[i].front()));
      count(report, list[i]);
    }
    if (options.progress) options.progress(i + 1, list.size());
  }
  images.commit();
  make_tokenizers(options, list, captions, report);
  const io::Json index{{"size", options.size},
                       {"source",
                        {{"font", font.family()},
                         {"font_version", font.version()},
                         {"font_licence", font.licence()},
                         {"names", fmt::format("Unicode emoji-test.txt {}", emoji_test_version(emoji_text))},
                         {"keywords", "Unicode CLDR annotations, en"}}},
                       {"items", std::move(entries)}};
  io::atomic_write((options.out / "index.json").string(), io::json_text(index, 1) + "\n");
  return report;
}

}  // namespace vkflux
