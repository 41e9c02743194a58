#include "app/cli/data.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <set>

#include "model/io/file.h"
#include "model/io/picture.h"

namespace vkflux::cli {

void say_once(const std::string& sentence) {
  static std::set<std::string> said;
  if (said.insert(sentence).second) spdlog::warn("{}", sentence);
}

Dataset open_dataset(const std::string& folder) {
  Dataset data = Dataset::open(folder);
  for (const std::string& sentence : data.remarks().sentences())
    say_once(fmt::format("{}: {}", folder, sentence));
  return data;
}

io::Picture read_given_picture(const std::string& flag, const std::string& path) {
  io::Picture picture = io::read_picture(path);
  io::PictureFacts facts = picture.facts;
  Remarks remarks;
  if (flag == "--mask" && facts.alpha) {
    remarks.add("with an alpha channel, which a mask's grey leaves out", path);
    facts.alpha = false;
  }
  remark_picture(facts, path, remarks);
  for (const std::string& sentence : remarks.sentences()) say_once(flag + ": " + sentence);
  return picture;
}

void say_cuts(const std::string& what, const std::vector<std::string>& texts,
              const std::vector<TextCut>& cuts) {
  if (cuts.empty()) return;
  constexpr size_t kShown = 3;
  std::set<size_t> cut;
  std::map<std::string, std::pair<size_t, size_t>> encoders;  // tokens read, texts with more
  for (const TextCut& c : cuts) {
    cut.insert(c.text);
    encoders[c.encoder].first = c.room;
    ++encoders[c.encoder].second;
  }
  std::string sentence =
      fmt::format("{} of {} {} {} longer than the model reads, the ends are cut off:", cut.size(),
                  texts.size(), what, cut.size() == 1 ? "is" : "are");
  for (const auto& [encoder, reads] : encoders)
    sentence += fmt::format(" {} reads {} tokens ({} {} more),", encoder, reads.first, reads.second,
                            reads.second == 1 ? "has" : "have");
  sentence.back() = ';';
  for (size_t i = 0; i < std::min(cuts.size(), kShown); ++i) {
    const TextCut& c = cuts[i];
    sentence += fmt::format(" {} loses \"{}\" of \"{}\" ({} tokens),", c.encoder, io::shown(c.lost),
                            io::shown(texts[c.text]), c.tokens);
  }
  sentence.pop_back();
  say_once(sentence + (cuts.size() > kShown ? ", ..." : ""));
}

}  // namespace vkflux::cli
