// Pictures that `vkflux sample` reads: a mask, a control picture, reference pictures, and how they are used.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/outputs.h"
#include "model/generate_job.h"

namespace vkflux::cli {

struct PictureArgs {
  std::string init, mask, control, fit = "stretch";
  std::vector<std::string> references;
  double strength = -1;  // below 0: the model's
  int64_t max_area = 0;
  std::string circular;  // "x", "y" or "xy"
  bool circular_x = false, circular_y = false;
  bool keep_reference_size = false, increase_reference_index = false, composite = false;
};

/// Adds --init, --strength, --mask, --composite, --fit, --control, --ref and what goes with it.
void add_picture_inputs(CLI::App& command, PictureArgs& args);
/// Adds --circular and its other names.
void add_circular_options(CLI::App& command, PictureArgs& args);
void declare_pictures(const PictureArgs& args, FileUse& files);
/// Reads the files.
void read_pictures(const PictureArgs& args, GenerateRequest& request);
/// What of it belongs to a picture's settings; strength: the one that was used.
void add_picture_settings(const PictureArgs& args, double strength, nlohmann::ordered_json& settings);

}  // namespace vkflux::cli
