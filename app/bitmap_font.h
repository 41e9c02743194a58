// Text on pictures without any font file: letters of 5 x 7 pixels in cells of 6 x 9.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/io/png.h"

namespace vkflux {

constexpr int kGlyphWidth = 6, kGlyphHeight = 9;  // with the space to the next letter and line

/// Draws a line of UTF-8 text with its upper left corner at (x, y), in one colour; what lies outside the
/// picture is left out. Printable ASCII has letters; every other character is drawn as '?'.
void draw_text(io::Image8& picture, int x, int y, const std::string& text, uint8_t grey = 0, int scale = 1);

/// Characters, not bytes.
int text_length(const std::string& text);
/// Lines of at most `columns` characters, broken at spaces where possible.
std::vector<std::string> wrap_text(const std::string& text, int columns);

}  // namespace vkflux
