#include "train/data/emoji_list.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <memory>

#include "vk/error.h"

namespace vkflux {
namespace {

constexpr size_t kMaxCodepoints = 16;  // the longest sequence in use has 10
constexpr size_t kMaxHeading = 256;    // bytes of a group's name, which every emoji of the group has

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::string_view take_until(std::string_view& rest, std::string_view stop) {
  const auto at = rest.find(stop);
  const std::string_view head = rest.substr(0, at);
  rest = at == std::string_view::npos ? std::string_view{} : rest.substr(at + stop.size());
  return head;
}

template <class T>
bool parse_number(std::string_view text, T& value, int base) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return error == std::errc{} && end == text.data() + text.size();
}

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](auto p) { return text.starts_with(p); });
}

bool is_any(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

/// "E0.6 grinning face" into version and name.
bool parse_name(std::string_view comment, Emoji& emoji) {
  const auto mark = comment.find(" E");
  if (mark == std::string_view::npos) return false;
  std::string_view rest = comment.substr(mark + 2);
  std::string_view version = take_until(rest, " ");
  const std::string_view major = take_until(version, ".");
  emoji.name = std::string(trim(rest));
  return parse_number(major, emoji.version.major, 10) && parse_number(version, emoji.version.minor, 10) &&
         !emoji.name.empty();
}

bool parse_codepoints(std::string_view text, std::u32string& out) {
  while (!(text = trim(text)).empty()) {
    uint32_t value = 0;
    if (!parse_number(take_until(text, " "), value, 16) || value == 0 || value > 0x10FFFF) return false;
    if (value >= 0xD800 && value <= 0xDFFF) return false;
    if (value != 0xFE0F) out.push_back(static_cast<char32_t>(value));
    if (out.size() > kMaxCodepoints) return false;
  }
  return !out.empty();
}

bool has_skin_tone(const Emoji& emoji) {
  return std::any_of(emoji.codepoints.begin(), emoji.codepoints.end(),
                     [](char32_t c) { return c >= 0x1F3FB && c <= 0x1F3FF; });
}

std::string unescape_xml(std::string_view text) {
  static constexpr std::array<std::pair<std::string_view, char>, 5> kEntities{
      {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}}};
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const auto* entity = std::find_if(kEntities.begin(), kEntities.end(),
                                      [&](const auto& e) { return text.substr(i).starts_with(e.first); });
    out.push_back(entity == kEntities.end() ? text[i] : entity->second);
    i += entity == kEntities.end() ? 1 : entity->first.size();
  }
  return out;
}

}  // namespace

std::string Emoji::key() const {
  std::string out;
  for (char32_t c : codepoints)
    out += fmt::format("{}{:x}", out.empty() ? "" : "-", static_cast<uint32_t>(c));
  return out;
}

std::vector<Emoji> parse_emoji_test(std::string_view text) {
  std::vector<Emoji> list;
  std::string group, subgroup;
  size_t number = 0;
  while (!text.empty()) {
    std::string_view line = trim(take_until(text, "\n"));
    ++number;
    if (line.starts_with("# group: ")) group = line.substr(9);
    if (line.starts_with("# subgroup: ")) subgroup = line.substr(12);
    if (std::max(group.size(), subgroup.size()) > kMaxHeading)
      throw Error(ErrorCode::format, fmt::format("line {}: a heading of over {} bytes", number, kMaxHeading));
    if (line.empty() || line.starts_with("#")) continue;
    const std::string_view codes = take_until(line, ";");
    const std::string_view status = trim(take_until(line, "#"));
    if (status != "fully-qualified") continue;
    Emoji emoji{{}, {}, group, subgroup, {}};
    if (!parse_codepoints(codes, emoji.codepoints) || !parse_name(line, emoji)) {
      throw Error(
          ErrorCode::format,
          fmt::format(
              "line {}: expected 'CODEPOINTS ; STATUS # EMOJI E1.0 name', as in Unicode's emoji-test.txt",
              number));
    }
    if (group != "Flags" && !has_skin_tone(emoji)) list.push_back(std::move(emoji));
  }
  if (list.empty())
    throw Error(ErrorCode::format, "no fully-qualified emoji found; expected Unicode's emoji-test.txt");
  return list;
}

std::string emoji_test_version(std::string_view text) {
  const auto at = text.find("# Version: ");
  if (at == std::string_view::npos) return "unknown";
  std::string_view rest = text.substr(at + 11);
  return std::string(trim(take_until(rest, "\n")));
}

Annotations parse_annotations(std::string_view xml) {
  Annotations out;
  while (true) {
    take_until(xml, "<annotation ");
    if (xml.empty()) break;
    std::string_view attributes = take_until(xml, ">");
    std::string_view body = xml.substr(0, xml.find('<'));
    if (attributes.find("type=\"tts\"") != std::string_view::npos) continue;
    take_until(attributes, "cp=\"");
    const std::string cp = unescape_xml(take_until(attributes, "\""));
    std::vector<std::string>& words = out[cp];
    while (!body.empty()) {
      const std::string word = unescape_xml(trim(take_until(body, "|")));
      if (!word.empty()) words.push_back(word);
    }
  }
  if (out.empty())
    throw Error(ErrorCode::format, "no <annotation> found; expected CLDR's common/annotations/en.xml");
  return out;
}

std::string caption_text(std::string_view text) {
  utf8proc_uint8_t* mapped = nullptr;
  const auto size = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                 static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                                UTF8PROC_STRIPMARK | UTF8PROC_CASEFOLD));
  if (size < 0) throw Error(ErrorCode::format, fmt::format("caption isn't UTF-8: {}", utf8proc_errmsg(size)));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
  std::string out;
  bool gap = false;
  for (utf8proc_ssize_t i = 0; i < size; ++i) {
    const char c = static_cast<char>(mapped[i]);
    if ((c < 'a' || c > 'z') && (c < '0' || c > '9')) {
      gap = true;
      continue;
    }
    if (gap && !out.empty()) out.push_back(' ');
    gap = false;
    out.push_back(c);
  }
  return out;
}

bool in_autoencoder_set(const Emoji& emoji) {
  const std::string_view group = emoji.group, sub = emoji.subgroup;
  if (is_any(group, {"Smileys & Emotion", "Animals & Nature", "Food & Drink", "Activities"})) return true;
  if (group == "Travel & Places") {
    return is_any(sub, {"place-geographic", "place-building", "sky & weather"}) ||
           sub.starts_with("transport-");
  }
  if (group == "Objects") {
    return is_any(sub,
                  {"clothing", "sound", "music", "musical-instrument", "phone", "computer", "light & video",
                   "book-paper", "money", "lock", "tool", "science", "household", "writing"});
  }
  if (group == "People & Body") {
    return sub.starts_with("hand-fingers-") || is_any(sub, {"hand-single-finger", "hands", "body-parts"});
  }
  return group == "Symbols" && sub == "geometric";
}

bool in_s775(const Emoji& emoji) {
  return in_autoencoder_set(emoji) && emoji.version <= EmojiVersion{5, 0};
}

bool in_s493(const Emoji& emoji) {
  const EmojiVersion newest = emoji.subgroup.starts_with("face-") ? EmojiVersion{1, 0} : EmojiVersion{0, 6};
  return in_autoencoder_set(emoji) && emoji.version <= newest;
}

bool is_tintable(const Emoji& emoji) {
  return starts_with_any(emoji.subgroup, {"animal-", "face-", "cat-face", "monkey-face"});
}

}  // namespace vkflux
