// Many pictures with their settings on one sheet.
#pragma once

#include <string>
#include <vector>

#include "model/io/png.h"

namespace vkflux {

struct SheetCell {
  io::Image8 picture;
  std::vector<std::string> labels;  // under the picture, each on lines of its own
};

/// White paper, cells of one size in rows of `columns`, in reading order. Pictures that are too small for
/// their labels are enlarged by whole factors. Error invalid_argument for a sheet of more than 64 Mpixel or
/// 16384 pixels a side, which io::read_png would refuse.
io::Image8 contact_sheet(const std::vector<SheetCell>& cells, int columns);

/// The mean of factor x factor pixels; what is left over at the right and below is dropped.
io::Image8 reduced(const io::Image8& picture, int factor);
/// Whole times as large.
io::Image8 enlarged(const io::Image8& picture, int factor);

}  // namespace vkflux
