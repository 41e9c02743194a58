// Letters from the fonts that are installed on this system, for text that the built-in letters can't show.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace vkflux {

/// Coverage of a letter's pixels, 0 to 255, row by row.
struct SystemGlyph {
  int width = 0, height = 0;
  int left = 0, top = 0;  // of its upper left pixel, from the pen's place on the baseline; top counts upwards
  std::vector<uint8_t> coverage;
};

/// The letter in the first outline font that has it: $VKFLUX_FONT (a file), then those below the folders that
/// fonts are installed in. Nothing where no font has it.
std::optional<SystemGlyph> system_glyph(char32_t character, int pixels);

}  // namespace vkflux
