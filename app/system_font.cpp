#include "app/system_font.h"

#include <ft2build.h>
#include FT_FREETYPE_H

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "vk/environment.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostFiles = 4096;

void collect(const std::string& folder, std::vector<std::string>& files) {
  std::error_code error;
  fs::recursive_directory_iterator it(folder, error), end;
  for (; !error && it != end && files.size() < kMostFiles; it.increment(error)) {
    const std::string extension = it->path().extension().string();
    if (extension == ".ttf" || extension == ".otf" || extension == ".ttc")
      files.push_back(it->path().string());
  }
}

/// Upright sans-serif letters read best when they are small.
int rank(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  int out = name.find("Sans") == std::string::npos ? 1 : 0;
  for (const char* style : {"Bold", "Italic", "Oblique", "Mono", "Condensed", "Light"})
    out += name.find(style) == std::string::npos ? 0 : 2;
  return out;
}

class Fonts {
 public:
  static Fonts& get() {
    static Fonts fonts;
    return fonts;
  }
  Fonts(const Fonts&) = delete;
  Fonts& operator=(const Fonts&) = delete;

  std::optional<SystemGlyph> glyph(char32_t c, int pixels) {
    for (size_t i = 0; library_ && i < files_.size(); ++i) {
      FT_Face face = opened(i);
      if (!face || FT_Get_Char_Index(face, c) == 0) continue;
      if (FT_Set_Pixel_Sizes(face, 0, static_cast<FT_UInt>(pixels)) != 0) continue;
      if (FT_Load_Char(face, c, FT_LOAD_RENDER) != 0) continue;
      const FT_GlyphSlot slot = face->glyph;
      const FT_Bitmap& bitmap = slot->bitmap;
      if (bitmap.pixel_mode != FT_PIXEL_MODE_GRAY) continue;
      SystemGlyph out{static_cast<int>(bitmap.width),
                      static_cast<int>(bitmap.rows),
                      slot->bitmap_left,
                      slot->bitmap_top,
                      {}};
      for (int y = 0; y < out.height; ++y) {
        const unsigned char* row = bitmap.buffer + std::ptrdiff_t{y} * bitmap.pitch;
        out.coverage.insert(out.coverage.end(), row, row + out.width);
      }
      return out;
    }
    return {};
  }

 private:
  Fonts() {
    if (FT_Init_FreeType(&library_) != 0) library_ = nullptr;
    const std::string home = environment("HOME"), wanted = environment("VKFLUX_FONT");
    std::vector<std::string> found;
    for (const char* folder : {"/usr/share/fonts", "/usr/local/share/fonts"}) collect(folder, found);
    if (!home.empty()) {
      for (const char* folder : {"/.local/share/fonts", "/.fonts"}) collect(home + folder, found);
    }
    std::sort(found.begin(), found.end(), [](const std::string& a, const std::string& b) {
      return std::pair(rank(a), a) < std::pair(rank(b), b);
    });
    if (!wanted.empty()) files_.push_back(wanted);
    files_.insert(files_.end(), found.begin(), found.end());
    faces_.resize(files_.size());
  }
  ~Fonts() {
    if (library_) FT_Done_FreeType(library_);  // with its faces
  }

  /// Null for what is no outline font.
  FT_Face opened(size_t i) {
    auto& [tried, face] = faces_[i];
    if (tried) return face;
    tried = true;
    if (FT_New_Face(library_, files_[i].c_str(), 0, &face) != 0) face = nullptr;
    if (face && !FT_IS_SCALABLE(face)) {
      FT_Done_Face(face);
      face = nullptr;
    }
    return face;
  }

  FT_Library library_ = nullptr;
  std::vector<std::string> files_;
  std::vector<std::pair<bool, FT_Face>> faces_;
};

}  // namespace

std::optional<SystemGlyph> system_glyph(char32_t character, int pixels) {
  return Fonts::get().glyph(character, pixels);
}

}  // namespace vkflux
