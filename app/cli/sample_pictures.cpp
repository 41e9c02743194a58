#include "app/cli/sample_pictures.h"

#include "app/cli/data.h"
#include "app/cli/numbers.h"
#include "model/io/file.h"

namespace vkflux::cli {
namespace {

bool wraps(const PictureArgs& args, char axis) {
  return args.circular.find(axis) != std::string::npos || (axis == 'x' ? args.circular_x : args.circular_y);
}

}  // namespace

void add_picture_inputs(CLI::App& c, PictureArgs& o) {
  CLI::Option* init = c.add_option(
      "--init", o.init,
      "a picture to start from (image to image), or of which --mask says what is repainted: PNG, JPEG or "
      "WebP; transparent parts are white");
  c.add_option("--strength", o.strength,
               "of --init: 1 forgets the picture; default: the model's (0.6, Fill models 1)")
      ->transform(real(1e-6, 1))
      ->needs(init);
  CLI::Option* mask =
      c.add_option(
           "--mask", o.mask,
           "repaint the parts of --init that are white in this picture (grey of 128 and more), with any "
           "model or with a Fill model")
          ->needs(init);
  c.add_flag(
       "--composite", o.composite,
       "put the pixels of --init back where --mask is black, mixed where it is grey: what isn't repainted "
       "stays as it was to the bit")
      ->needs(mask);
  c.add_option(
       "--fit", o.fit,
       "what becomes of --init, --mask and --control in another shape than --size: stretch, or crop, which "
       "takes their middle")
      ->capture_default_str()
      ->check(CLI::IsMember({"stretch", "crop"}));
  c.add_option("--control", o.control,
               "the picture of edges or depths that a control model (Canny, Depth) follows");
  CLI::Option* ref = c.add_option(
      "--ref,--ref-image", o.references,
      "a picture that a Kontext or FLUX.2 model edits or takes things from; repeat it for several");
  c.add_flag("--disable-auto-resize-ref-image", o.keep_reference_size,
             "read --ref in its own size, not in the nearest of the sizes that Kontext was trained on, and "
             "not with at most 1024x1024 pixels (FLUX.2)")
      ->needs(ref);
  c.add_flag("--increase-ref-index", o.increase_reference_index,
             "tell several --ref apart by number, not by place (FLUX.2 always does)")
      ->needs(ref);
  c.add_option(
       "--max-area", o.max_area,
       "keep the shape of --size and draw about this many pixels: what diffusers' Kontext does with 1048576")
      ->transform(whole(1, int64_t{1} << 28));
}

void add_circular_options(CLI::App& c, PictureArgs& o) {
  c.add_option(
       "--circular", o.circular,
       "draw a texture that tiles: left and right (x), upper and lower (y) borders, or all of them (xy) fit "
       "each other; alone it means xy")
      ->expected(0, 1)
      ->default_str("xy")
      ->check(CLI::IsMember({"x", "y", "xy"}));
  c.add_flag("--circularx", o.circular_x, "--circular x");
  c.add_flag("--circulary", o.circular_y, "--circular y");
}

void declare_pictures(const PictureArgs& args, FileUse& files) {
  files.reads("--init", args.init);
  files.reads("--mask", args.mask);
  files.reads("--control", args.control);
  files.reads("--ref", args.references);
}

void read_pictures(const PictureArgs& args, GenerateRequest& r) {
  if (!args.init.empty()) r.init = on_white(read_given_picture("--init", args.init).image);
  if (args.strength >= 0) r.strength = args.strength;
  if (!args.mask.empty()) r.mask = read_given_picture("--mask", args.mask);
  if (!args.control.empty()) r.control = on_white(read_given_picture("--control", args.control).image);
  for (const std::string& path : args.references)
    r.references.push_back(on_white(read_given_picture("--ref", path).image));
  r.fit = args.fit == "crop" ? Fit::crop : Fit::stretch;
  r.resize_references = !args.keep_reference_size;
  r.count_references = args.increase_reference_index;
  r.composite = args.composite;
  r.max_area = args.max_area;
  r.circular_x = wraps(args, 'x');
  r.circular_y = wraps(args, 'y');
}

void add_picture_settings(const PictureArgs& args, double strength, nlohmann::ordered_json& j) {
  if (!args.init.empty()) {
    j["init"] = io::last_name(args.init);
    j["strength"] = strength;
  }
  if (!args.mask.empty()) j["mask"] = io::last_name(args.mask);
  if (args.composite) j["composite"] = true;
  if (!args.control.empty()) j["control"] = io::last_name(args.control);
  for (const std::string& path : args.references) j["ref"].push_back(io::last_name(path));
  if (args.keep_reference_size) j["ref_size"] = "own";
  if (args.increase_reference_index) j["ref_index"] = "counted";
  if (args.fit != "stretch") j["fit"] = args.fit;
  const std::string around = std::string(wraps(args, 'x') ? "x" : "") + (wraps(args, 'y') ? "y" : "");
  if (!around.empty()) j["circular"] = around;
}

}  // namespace vkflux::cli
