// What a picture's texts say about how it was drawn, as flags of `vkflux sample`.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/io/png.h"

namespace vkflux {

struct PictureSettings {
  std::string source;  // whose words they are: "vkflux", "A1111", "ComfyUI"
  /// Flags with their values, "--steps" and "20"; none twice. Values are as they were found: whoever takes
  /// them checks them.
  std::vector<std::pair<std::string, std::string>> flags;
  std::vector<std::string> left;  // sentences on what has no flag

  void set(std::string flag, std::string value);
};

/// From our own text, else A1111's "parameters", else ComfyUI's "prompt" or "workflow". Texts may be hostile:
/// what makes no sense is left, with a sentence. Absent: there is no such text.
std::optional<PictureSettings> picture_settings(const io::PngText& texts);

/// One kind each, for texts that are of that kind.
PictureSettings vkflux_settings(const std::string& json);
PictureSettings a1111_settings(const std::string& parameters);
PictureSettings comfy_settings(const std::string& json, bool workflow);

/// Our name of a sampler and a schedule of other programs; "": there is none.
std::string sampler_flag(std::string_view name);
std::string schedule_flag(std::string_view name);

}  // namespace vkflux
