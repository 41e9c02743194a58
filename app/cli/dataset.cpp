#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <map>

#include "app/cli/cli.h"
#include "app/cli/numbers.h"
#include "app/outputs.h"
#include "model/io/json.h"
#include "train/data/dataset.h"
#include "train/data/emoji_dataset.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

/// Before anything is read. The pictures' folder is replaced as a whole, so it must be of an earlier run.
void check_files(const EmojiDatasetOptions& o) {
  FileUse files;
  files.reads("--font", o.font.string());
  files.reads("--emoji-test", o.emoji_test.string());
  files.reads("--annotations", o.annotations.string());
  files.writes("--out", (o.out / "index.json").string());
  for (const char* name : {"images", "images.partial", "tokenizer", "tokenizer_2"})
    files.fills("--out", (o.out / name).string());
  files.check();
  std::error_code ignored;
  const auto images = o.out / "images";
  if (std::filesystem::exists(images, ignored) && !std::filesystem::exists(o.out / "index.json", ignored)) {
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("--out {}: {} is there, but no index.json of an earlier data set, and it would be "
                    "replaced: give another folder",
                    o.out.string(), images.string()));
  }
}

int make_emoji(const Common& common, EmojiDatasetOptions options) {
  check_files(options);
  EmojiDatasetReport report;
  {
    std::unique_ptr<Progress> bar;
    options.progress = [&](size_t done, size_t total) {
      if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted; the same command starts over");
      if (!bar) bar = std::make_unique<Progress>("emoji", static_cast<int64_t>(total));
      bar->update(static_cast<int64_t>(done));
    };
    report = write_emoji_dataset(options);
  }
  const auto lengths = [](const TokenLengths& t) {
    return Json{{"median", t.median}, {"p90", t.p90}, {"p99", t.p99}, {"max", t.max}};
  };
  const Json j{{"out", options.out.string()},
               {"size", options.size},
               {"items", report.items},
               {"splits",
                {{"autoencoder", report.autoencoder},
                 {"s775", report.s775},
                 {"s493", report.s493},
                 {"unseen", report.unseen}}},
               {"tokens_of_names", {{"clip", lengths(report.clip)}, {"t5", lengths(report.t5)}}}};
  if (common.json) {
    fmt::print("{}\n", io::json_text(j));
    return kOk;
  }
  fmt::print("{}: {} pictures of {}x{}\n", options.out.string(), report.items, options.size, options.size);
  for (const auto& [name, count] : j["splits"].items())
    fmt::print("  {:<12} {}\n", name, count.get<size_t>());
  return kOk;
}

struct ListOptions {
  std::string folder, split = "all";
  bool captions = false;
};

int list_dataset(const Common& common, const ListOptions& o) {
  const Dataset data = Dataset::open(o.folder);
  const std::vector<size_t> members = data.split(o.split);
  std::map<std::string, size_t> splits, groups;
  size_t captions = 0, tintable = 0;
  for (const DatasetItem& item : data.items()) {
    for (const std::string& s : item.splits) ++splits[s];
  }
  for (const size_t i : members) {
    const DatasetItem& item = data.items()[i];
    if (!item.group.empty()) ++groups[item.group];
    captions += item.captions.size();
    tintable += item.tintable;
  }
  Json j{{"folder", o.folder},   {"split", o.split}, {"items", members.size()}, {"captions", captions},
         {"tintable", tintable}, {"splits", splits}, {"groups", groups}};
  if (o.captions) {
    Json list = Json::array();
    for (const size_t i : members)
      list.push_back({{"file", data.items()[i].file}, {"captions", data.items()[i].captions}});
    j["list"] = std::move(list);
  }
  if (common.json) {
    fmt::print("{}\n", io::json_text(j, 1));
    return kOk;
  }
  fmt::print("{}: {} pictures in split {}, {} captions\n", o.folder, members.size(), o.split, captions);
  for (const auto& [name, count] : splits) fmt::print("  split {:<14} {}\n", name, count);
  for (const auto& [name, count] : groups) fmt::print("  group {:<24} {}\n", name, count);
  if (o.captions) {
    for (const Json& item : j["list"]) {
      fmt::print("{}\t{}\n", item["file"].get<std::string>(),
                 fmt::join(item["captions"].get<std::vector<std::string>>(), " | "));
    }
  }
  return kOk;
}

}  // namespace

void add_dataset(CLI::App& app) {
  CLI::App* dataset = app.add_subcommand("dataset", "make or look at a data set of pictures and captions");
  dataset->require_subcommand(1);

  auto emoji_common = std::make_shared<Common>();
  auto emoji = std::make_shared<EmojiDatasetOptions>();
  CLI::App* make = add_command(*dataset, "emoji", "make the emoji data set from the distribution's packages",
                               "vkflux dataset emoji --out data/emoji", emoji_common,
                               [emoji_common, emoji] { return make_emoji(*emoji_common, *emoji); });
  make->add_option("--out", emoji->out, "folder to make")->required();
  make->add_option("--size", emoji->size, "pixels a side")->capture_default_str()->transform(whole(8, 1024));
  make->add_option("--font", emoji->font, "colour bitmap font (fonts-noto-color-emoji)")
      ->capture_default_str();
  make->add_option("--emoji-test", emoji->emoji_test, "names (unicode-data)")->capture_default_str();
  make->add_option("--annotations", emoji->annotations, "keywords (unicode-cldr-core)")
      ->capture_default_str();

  make->add_option("--clip-vocab", emoji->clip_vocab, "largest vocabulary of the CLIP tokenizer")
      ->capture_default_str()
      ->transform(whole(600, 1000000));
  make->add_option("--t5-vocab", emoji->t5_vocab, "largest vocabulary of the T5 tokenizer")
      ->capture_default_str()
      ->transform(whole(300, 1000000));
  make->add_option("--clip-length", emoji->clip_length, "tokens of a caption, CLIP")
      ->capture_default_str()
      ->transform(whole(2, 4096));
  make->add_option("--t5-length", emoji->t5_length, "tokens of a caption, T5")
      ->capture_default_str()
      ->transform(whole(2, 4096));

  auto list_common = std::make_shared<Common>();
  auto list = std::make_shared<ListOptions>();
  CLI::App* show = add_command(*dataset, "list", "count a data set's pictures, captions and splits",
                               "vkflux dataset list --captions data/emoji", list_common,
                               [list_common, list] { return list_dataset(*list_common, *list); });
  show->add_option("folder", list->folder, "folder of NAME.png with NAME.txt")->required();
  show->add_option("--split", list->split, "only this split")->capture_default_str();
  show->add_flag("--captions", list->captions, "also list every picture with its captions");
}

}  // namespace vkflux::cli
