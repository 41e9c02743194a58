#include "app/cli/from_image.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include "app/cli/data.h"
#include "app/picture_settings.h"
#include "model/io/file.h"
#include "model/io/picture_file.h"
#include "vk/error.h"

namespace vkflux::cli {
namespace {

bool given(const CLI::App& command, const char* flag) {
  const CLI::Option* option = command.get_option_no_throw(flag);
  return option && option->count() > 0;
}

/// Whether the command line says this, or something in its place.
bool overridden(const CLI::App& command, const std::string& flag) {
  if (given(command, flag.c_str())) return true;
  if (flag == "--prompt") return given(command, "--prompts");
  if (flag == "--seed") return given(command, "--seeds");
  return false;
}

/// Empty, or why the option can't have this value.
std::string give(CLI::App& command, const std::string& flag, const std::string& value) {
  CLI::Option* option = command.get_option_no_throw(flag);
  if (!option) return "there is no such flag";
  try {
    if (option->get_expected_max() == 0) {
      if (value != "true") return value == "false" ? "" : "it has no value";
      option->add_result("true");
    } else {
      option->add_result(value);
    }
    option->run_callback();
    return "";
  } catch (const CLI::Error& e) {
    option->clear();
    return io::shown(e.what());
  }
}

}  // namespace

void apply_from_image(CLI::App& command, const std::string& path, std::vector<std::string>& prompts) {
  const auto settings = picture_settings(io::read_picture_text(path));
  if (!settings) {
    throw Error(
        ErrorCode::format,
        fmt::format("--from-image {}: it doesn't say how it was drawn (no text of vkflux, A1111 or ComfyUI)",
                    path));
  }
  std::vector<std::string> taken, left = settings->left;
  for (const auto& [flag, value] : settings->flags) {
    if (overridden(command, flag)) continue;
    if (flag == "--strength" && !given(command, "--init")) {
      left.push_back(fmt::format("--strength {}: it needs --init", io::shown(value)));
      continue;
    }
    if (flag == "--composite" && !given(command, "--mask")) {
      left.push_back("--composite: it needs --mask");
      continue;
    }
    std::string why;
    if (flag == "--prompt") {
      prompts = {value};
    } else {
      why = give(command, flag, value);
    }
    if (why.empty()) {
      taken.push_back(fmt::format("{} {}", flag,
                                  value.find(' ') == std::string::npos && !value.empty()
                                      ? io::shown(value)
                                      : "\"" + io::shown(value) + "\""));
    } else {
      left.push_back(fmt::format("{} {}: {}", io::shown(flag), io::shown(value), why));
    }
  }
  spdlog::info("{} (by {}): {}", path, settings->source,
               taken.empty() ? "nothing was taken over" : fmt::format("{}", fmt::join(taken, " ")));
  for (const std::string& sentence : left) say_once(fmt::format("{}: not taken over: {}", path, sentence));
}

}  // namespace vkflux::cli
