#include "vk/environment.h"

#include <cstdlib>

namespace vkflux {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

std::string temporary_folder() {
  const std::string folder = environment("TMPDIR");
  return folder.empty() ? "/tmp" : folder;
}

std::string cache_folder() {
  const std::string own = environment("VKFLUX_CACHE_DIR"), xdg = environment("XDG_CACHE_HOME"),
                    home = environment("HOME");
  return !own.empty() ? own : !xdg.empty() ? xdg + "/vkflux" : home.empty() ? "" : home + "/.cache/vkflux";
}

}  // namespace vkflux
