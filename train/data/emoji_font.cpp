#include "train/data/emoji_font.h"

#include <fmt/format.h>
#include <ft2build.h>
#include FT_FREETYPE_H
#include FT_SFNT_NAMES_H
#include FT_TRUETYPE_TABLES_H

#include <algorithm>

#include "vk/error.h"

namespace vkflux {

struct EmojiFont::Face {
  FT_Library library = nullptr;
  FT_Face face = nullptr;
  ~Face() {
    if (face) FT_Done_Face(face);
    if (library) FT_Done_FreeType(library);
  }
};

namespace {

std::vector<uint8_t> sfnt_table(FT_Face face, FT_ULong tag) {
  FT_ULong size = 0;
  if (FT_Load_Sfnt_Table(face, tag, 0, nullptr, &size) != 0) return {};
  std::vector<uint8_t> bytes(size);
  if (FT_Load_Sfnt_Table(face, tag, 0, bytes.data(), &size) != 0) return {};
  return bytes;
}

}  // namespace

EmojiFont::EmojiFont(std::string bytes) : bytes_(std::move(bytes)), face_(std::make_unique<Face>()) {
  if (FT_Init_FreeType(&face_->library) != 0)
    throw Error(ErrorCode::out_of_host_memory, "FreeType could not start");
  const FT_Error error = FT_New_Memory_Face(face_->library, reinterpret_cast<const FT_Byte*>(bytes_.data()),
                                            static_cast<FT_Long>(bytes_.size()), 0, &face_->face);
  if (error != 0)
    throw Error(ErrorCode::format, fmt::format("not a font that FreeType can read (error {})", error));
  if (face_->face->num_fixed_sizes < 1 || FT_Select_Size(face_->face, 0) != 0) {
    throw Error(ErrorCode::format,
                "the font has no colour bitmaps; expected NotoColorEmoji.ttf with CBDT strikes");
  }
  const auto gsub = sfnt_table(face_->face, FT_MAKE_TAG('G', 'S', 'U', 'B'));
  if (!gsub.empty()) ligatures_ = Ligatures::parse(gsub);
}

EmojiFont::~EmojiFont() = default;

std::string EmojiFont::family() const {
  return face_->face->family_name ? face_->face->family_name : "unnamed";
}

std::string EmojiFont::name_record(unsigned id) const {
  for (FT_UInt i = 0; i < FT_Get_Sfnt_Name_Count(face_->face); ++i) {
    FT_SfntName record{};
    if (FT_Get_Sfnt_Name(face_->face, i, &record) != 0 || record.name_id != id) continue;
    std::string text;  // Windows records are UTF-16 big-endian; these fields are ASCII
    for (FT_UInt k = 0; k < record.string_len; ++k) {
      if (record.string[k] >= 0x20 && record.string[k] < 0x7F)
        text.push_back(static_cast<char>(record.string[k]));
    }
    return text;
  }
  return "unknown";
}

std::optional<RgbaImage> EmojiFont::render(std::u32string_view codepoints) const {
  std::vector<uint32_t> glyphs;
  for (char32_t c : codepoints) {
    glyphs.push_back(FT_Get_Char_Index(face_->face, c));
    if (glyphs.back() == 0) return std::nullopt;
  }
  const auto glyph = ligatures_.substitute(std::move(glyphs));
  if (!glyph || FT_Load_Glyph(face_->face, *glyph, FT_LOAD_COLOR) != 0) return std::nullopt;
  const FT_Bitmap& bitmap = face_->face->glyph->bitmap;
  if (bitmap.pixel_mode != FT_PIXEL_MODE_BGRA || bitmap.width == 0 || bitmap.rows == 0) return std::nullopt;
  RgbaImage image(static_cast<int>(bitmap.width), static_cast<int>(bitmap.rows));
  for (int y = 0; y < image.height; ++y) {
    const unsigned char* row = bitmap.buffer + static_cast<std::ptrdiff_t>(y) * bitmap.pitch;
    for (int x = 0; x < image.width; ++x, row += 4) {  // premultiplied B, G, R, A
      float* p = image.at(x, y);
      p[3] = static_cast<float>(row[3]) / 255.0f;
      for (int c = 0; c < 3; ++c) p[c] = std::min(static_cast<float>(row[2 - c]) / 255.0f, p[3]);
    }
  }
  return image;
}

}  // namespace vkflux
