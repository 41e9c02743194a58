// Colour bitmaps of emoji from a font with CBDT strikes (Noto Color Emoji), through FreeType.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "model/io/rgba_image.h"
#include "train/data/gsub.h"

namespace vkflux {

class EmojiFont {
 public:
  /// `bytes` is the font file. ErrorCode::format when FreeType can't read it or it has no colour bitmaps.
  explicit EmojiFont(std::string bytes);
  ~EmojiFont();
  EmojiFont(const EmojiFont&) = delete;
  EmojiFont& operator=(const EmojiFont&) = delete;

  /// The bitmap of an emoji (a sequence goes through the font's ligatures), at the strike's own size; nothing
  /// when the font has none.
  std::optional<RgbaImage> render(std::u32string_view codepoints) const;

  /// From the font's name table: "Version 2.042;GOOG;..." and the licence's address.
  std::string version() const { return name_record(5); }
  std::string licence() const { return name_record(14); }
  std::string family() const;

 private:
  struct Face;
  std::string name_record(unsigned id) const;

  std::string bytes_;  // FreeType reads from it as long as the face lives
  std::unique_ptr<Face> face_;
  Ligatures ligatures_;
};

}  // namespace vkflux
