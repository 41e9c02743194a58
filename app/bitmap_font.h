// Text on pictures: built-in letters of 5 x 7 pixels in cells of 6 x 9, and the system's fonts for the rest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/io/png.h"

namespace vkflux {

constexpr int kGlyphWidth = 6, kGlyphHeight = 9;  // with the space to the next letter and line

/// Draws a line of UTF-8 text with its upper left corner at (x, y), in one colour; what lies outside the
/// picture is left out. Printable ASCII has letters, with the marks of European languages; other characters
/// come from the system's fonts, and are boxes where none has them.
void draw_text(io::Image8& picture, int x, int y, const std::string& text, uint8_t grey = 0, int scale = 1);

/// The characters of a text that draw_text() shows as boxes, each once.
std::string undrawable(const std::string& text);

/// Cells of a line: one for most characters, two for wide ones (Chinese, say), none for marks.
int text_length(const std::string& text);
/// Lines of at most `columns` cells (but at least 2), broken at spaces where possible.
std::vector<std::string> wrap_text(const std::string& text, int columns);

}  // namespace vkflux
