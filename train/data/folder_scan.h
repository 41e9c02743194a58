// The pictures and captions of a folder, by name.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "train/data/remarks.h"

namespace vkflux {

/// Whether a name ends as those of the formats that are read do: .png, .jpg, .jpeg, .webp, in any case.
bool has_picture_name(const std::filesystem::path& file);

/// The caption's file beside a picture: NAME.txt, NAME.TXT or NAME.Txt, the first that there is.
std::optional<std::filesystem::path> caption_of(const std::filesystem::path& picture);

/// Every picture with a caption under the folder, as sorted paths relative to it. Links are followed; each
/// folder is read once, by its own name where it has one in here. What isn't used becomes remarks. Error io
/// names a folder that can't be listed, format when there are over ten million pictures.
std::vector<std::string> scan_folder(const std::filesystem::path& folder, Remarks& remarks);

}  // namespace vkflux
