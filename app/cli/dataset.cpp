#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "app/cli/cli.h"
#include "app/cli/data.h"
#include "train/data/dataset.h"
#include "train/data/emoji_dataset.h"
#include "train/data/tokenizer_training.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFolderHelp = "folder of pictures (PNG, JPEG, WebP) with captions NAME.txt";

Json lengths(const TokenLengths& t) {
  return {{"median", t.median}, {"p90", t.p90}, {"p99", t.p99}, {"max", t.max}};
}

void add_tokenizer_sizes(CLI::App* c, TokenizerSizes& sizes) {
  c->add_option("--clip-vocab", sizes.clip_vocab, "largest vocabulary of the CLIP tokenizer")
      ->capture_default_str()
      ->check(CLI::Range(515, 1 << 20));
  c->add_option("--t5-vocab", sizes.t5_vocab, "largest vocabulary of the T5 tokenizer")
      ->capture_default_str()
      ->check(CLI::Range(8, 1 << 20));
  c->add_option("--clip-length", sizes.clip_length, "tokens of a caption, CLIP")
      ->capture_default_str()
      ->check(CLI::Range(2, 4096));
  c->add_option("--t5-length", sizes.t5_length, "tokens of a caption, T5")
      ->capture_default_str()
      ->check(CLI::Range(2, 4096));
}

int make_emoji(const Common& common, EmojiDatasetOptions options) {
  EmojiDatasetReport report;
  {
    std::unique_ptr<Progress> bar;
    options.progress = [&](size_t done, size_t total) {
      check_interrupted("making the data set (the same command starts over)");
      if (!bar) bar = std::make_unique<Progress>("emoji", static_cast<int64_t>(total));
      bar->update(static_cast<int64_t>(done));
    };
    report = write_emoji_dataset(options);
  }
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
    print_out("{}\n", j.dump());
    return kOk;
  }
  print_out("{}: {} pictures of {}x{}\n", options.out.string(), report.items, options.size, options.size);
  for (const auto& [name, count] : j["splits"].items()) print_out("  {:<12} {}\n", name, count.get<size_t>());
  return kOk;
}

struct TokenizersOptions {
  std::string folder, out, from;
  bool replace = false;
  TokenizerSizes sizes;
};

int make_tokenizers(const Common& common, const TokenizersOptions& o) {
  const std::filesystem::path out = o.out.empty() ? o.folder : o.out;
  if (has_tokenizers(out) && !o.replace) {
    throw Error(ErrorCode::invalid_argument,
                fmt::format("{}: there are tokenizers, perhaps those of a model; --replace makes others",
                            out.string()));
  }
  const Dataset data = open_dataset(o.folder);
  if (o.from.empty()) {
    write_tokenizers(out, tokenizer_texts(data), o.sizes);
  } else {
    copy_tokenizers(o.from, out);
  }
  std::vector<std::string> captions;
  for (const TrainingText& text : tokenizer_texts(data)) captions.push_back(text.text);
  Json j{{"out", out.string()}, {"captions", captions.size()}};
  const auto add = [&](const char* name, const char* folder, const auto& load) {
    const auto tokenizer = load((out / folder).string());
    j[name] = {{"vocabulary", tokenizer->vocab_size()},
               {"tokens", lengths(token_lengths(*tokenizer, captions))}};
  };
  add("clip", "tokenizer", load_clip_tokenizer);
  add("t5", "tokenizer_2", load_t5_tokenizer);
  if (common.json) {
    fmt::print("{}\n", j.dump(-1, ' ', false, Json::error_handler_t::replace));
    return kOk;
  }
  fmt::print("{}: tokenizers {} {} captions\n", out.string(), o.from.empty() ? "made from" : "for",
             captions.size());
  for (const char* name : {"clip", "t5"}) {
    const Json& tokens = j[name]["tokens"];
    fmt::print("  {:<5} {} pieces; captions have {} tokens (median), at most {}\n", name,
               j[name]["vocabulary"].get<int>(), tokens["median"].get<size_t>(), tokens["max"].get<size_t>());
  }
  return kOk;
}

struct ListOptions {
  std::string folder, split = "all";
  bool captions = false;
};

int list_dataset(const Common& common, const ListOptions& o) {
  const Dataset data = open_dataset(o.folder);
  const std::vector<size_t> members = data.split(o.split);
  data.check_pictures(members);
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
  Json j{{"folder", o.folder},      {"split", o.split},
         {"items", members.size()}, {"captions", captions},
         {"tintable", tintable},    {"splits", splits},
         {"groups", groups},        {"remarks", data.remarks().names()}};
  if (o.captions) {
    Json list = Json::array();
    for (const size_t i : members)
      list.push_back({{"file", data.items()[i].file}, {"captions", data.items()[i].captions}});
    j["list"] = std::move(list);
  }
  if (common.json) {
    print_out("{}\n", j.dump(1));
    return kOk;
  }
  print_out("{}: {} pictures in split {}, {} captions\n", o.folder, members.size(), o.split, captions);
  for (const auto& [name, count] : splits) print_out("  split {:<14} {}\n", name, count);
  for (const auto& [name, count] : groups) print_out("  group {:<24} {}\n", name, count);
  if (o.captions) {
    for (const Json& item : j["list"]) {
      print_out("{}\t{}\n", item["file"].get<std::string>(),
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
  make->add_option("--size", emoji->size, "pixels a side")->capture_default_str()->check(CLI::Range(8, 1024));
  make->add_option("--font", emoji->font, "colour bitmap font (fonts-noto-color-emoji)")
      ->capture_default_str();
  make->add_option("--emoji-test", emoji->emoji_test, "names (unicode-data)")->capture_default_str();
  make->add_option("--annotations", emoji->annotations, "keywords (unicode-cldr-core)")
      ->capture_default_str();

  add_tokenizer_sizes(make, emoji->tokenizers);

  auto tokenizers_common = std::make_shared<Common>();
  auto tokenizers = std::make_shared<TokenizersOptions>();
  CLI::App* tokenize = add_command(
      *dataset, "tokenizers", "make the tokenizers of a model from a data set's captions",
      "vkflux dataset tokenizers photos\n  "
      "vkflux dataset tokenizers photos --from models/emoji --out tokenizers",
      tokenizers_common,
      [tokenizers_common, tokenizers] { return make_tokenizers(*tokenizers_common, *tokenizers); });
  tokenize->add_option("folder", tokenizers->folder, kFolderHelp)->required();
  tokenize->add_option("--out", tokenizers->out,
                       "where to write the folders tokenizer and tokenizer_2; default: into the data set");
  tokenize->add_option("--from", tokenizers->from,
                       "copy those of this model's folder in place of making new ones");
  tokenize->add_flag("--replace", tokenizers->replace, "even where there are tokenizers");
  add_tokenizer_sizes(tokenize, tokenizers->sizes);

  auto list_common = std::make_shared<Common>();
  auto list = std::make_shared<ListOptions>();
  CLI::App* show = add_command(*dataset, "list", "count a data set's pictures, captions and splits",
                               "vkflux dataset list --captions data/emoji", list_common,
                               [list_common, list] { return list_dataset(*list_common, *list); });
  show->add_option("folder", list->folder, kFolderHelp)->required();
  show->add_option("--split", list->split, "only this split")->capture_default_str();
  show->add_flag("--captions", list->captions, "also list every picture with its captions");
}

}  // namespace vkflux::cli
