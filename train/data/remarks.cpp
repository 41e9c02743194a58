#include "train/data/remarks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "model/io/file.h"

namespace vkflux {

std::vector<std::string> Remarks::sentences() const {
  constexpr size_t kShown = 5;
  std::vector<std::string> out;
  for (const auto& [what, names] : names_) {
    std::vector<std::string> first;
    for (size_t i = 0; i < std::min(names.size(), kShown); ++i) first.push_back(io::shown(names[i]));
    out.push_back(fmt::format("{}: {} ({}{})", what, names.size(), fmt::join(first, ", "),
                              names.size() > kShown ? ", ..." : ""));
  }
  return out;
}

void remark_picture(const io::PictureFacts& facts, const std::string& name, Remarks& remarks) {
  const auto say = [&](bool it_is_so, const char* what) {
    if (it_is_so) remarks.add(what, name);
  };
  say(facts.orientation > 1, "turned upright, as EXIF says");
  say(facts.alpha, "with an alpha channel: transparent parts are shown on white");
  say(facts.deep, "of 16 bits a channel: 8 are kept");
  say(facts.profile, "with a colour profile (ICC), which isn't applied: taken for sRGB");
  say(facts.cmyk, "of inks (CMYK): converted to RGB without a profile");
  say(facts.animated, "animated: the first picture is used");
}

}  // namespace vkflux
