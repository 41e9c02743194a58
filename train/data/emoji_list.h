// The Unicode emoji list (emoji-test.txt) and its English annotations (CLDR en.xml), and which emoji make
// which split.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace vkflux {

struct EmojiVersion {
  int major = 0, minor = 0;
  auto operator<=>(const EmojiVersion&) const = default;
};

/// One fully-qualified line of emoji-test.txt, U+FE0F dropped.
struct Emoji {
  std::u32string codepoints;
  std::string name;  // as in the file, for example "grinning face"
  std::string group, subgroup;
  EmojiVersion version;

  /// Lower-case hexadecimal code points joined by '-': "1f636-200d-1f32b".
  std::string key() const;
};

/// Fully-qualified emoji in file order, without skin-tone code points and without the group Flags.
/// ErrorCode::format with the line number when the text isn't an emoji-test file.
std::vector<Emoji> parse_emoji_test(std::string_view text);

/// Version in the "# Version: 15.0" line, "unknown" without one.
std::string emoji_test_version(std::string_view text);

/// Code points (UTF-8, without U+FE0F) to their keywords in file order, from a CLDR annotations file. The
/// spoken-name entries (type="tts") are skipped.
using Annotations = std::map<std::string, std::vector<std::string>, std::less<>>;
Annotations parse_annotations(std::string_view xml);

/// Caption text: lower-case a-z, digits and single spaces; accents are dropped, anything else parts words.
std::string caption_text(std::string_view text);

/// Objects a person would draw, not signs and people: the autoencoder's set.
bool in_autoencoder_set(const Emoji& emoji);
/// Of that set: version up to 5.0, and the most common ones (up to 0.6, faces up to 1.0). Older emoji are
/// better known.
bool in_s775(const Emoji& emoji);
bool in_s493(const Emoji& emoji);
/// Whether a recoloured picture still shows the same thing: animals and faces.
bool is_tintable(const Emoji& emoji);

}  // namespace vkflux
