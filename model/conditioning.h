// What pictures tell a model: a picture to start from, a mask, a control picture, reference pictures. From
// files as people bring them to what a SamplingRun takes, as diffusers' pipelines of FLUX.1 prepare them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/io/picture.h"
#include "model/latent_codec.h"
#include "model/rgb_image.h"
#include "model/sampler/request.h"

namespace vkflux {

/// The pictures of a request and how they are used.
struct PictureRequest {
  std::optional<RgbImage> init;     // image to image, inpainting, Fill
  std::optional<double> strength;   // of them; absent: the model's
  std::optional<io::Picture> mask;  // grey of 128 and more is repainted
  std::optional<RgbImage> control;
  std::vector<RgbImage> references;
  Fit fit = Fit::stretch;         // of init, mask and control
  bool resize_references = true;  // to the sizes that Kontext was trained on; else only to whole tokens
  bool count_references =
      false;               // their first position counts 1, 2, ...; else all have 1 and lie side by side
  int64_t max_area = 0;    // about so many pixels in the shape of the size; 0: the size itself
  bool composite = false;  // the init picture's own pixels where the mask keeps it
};

/// Error invalid_argument, with what to give, unless the model can do with these pictures; notes get
/// sentences on what is done otherwise than might be thought.
void check_pictures(const ModelInfo& model, const PictureRequest& request, const SamplingOptions& options,
                    std::vector<std::string>& notes);

/// Width and height of a reference picture of width x height: of the sizes that Kontext knows the one whose
/// shape is nearest, or its own, in whole tokens of `unit` pixels. Error invalid_argument where it is
/// smaller.
struct PictureSize {
  int64_t width = 0, height = 0;
};
PictureSize reference_size(int64_t width, int64_t height, int64_t unit, bool resize);
/// The size of about `area` pixels in the shape of width x height, in whole tokens of `unit` pixels.
PictureSize size_of_area(int64_t width, int64_t height, int64_t area, int64_t unit);

/// What encoding gives: everything on the device, of one picture each.
struct PictureInputs {
  Tensor clean;    // [1, channels, h, w] of the init picture; undefined: none
  Tensor repaint;  // [1, tokens, channels of a token], 1 where the model paints; undefined: everywhere
  Condition condition;
  std::vector<ReferenceGrid> references;
};
/// Encodes the pictures of a checked request for width x height pixels. `codec` is asked for when needed.
PictureInputs encode_pictures(Device& device, const ModelInfo& model, const PictureRequest& request,
                              int64_t width, int64_t height,
                              const std::function<std::shared_ptr<const LatentCodec>()>& codec);

/// Pixels [0, 255] as [1, 3, height, width] in [-1, 1].
Tensor upload_picture(Device& device, const RgbImage& image);
/// `drawn` where the mask is white, the init picture where it is black, mixtures between.
RgbImage composited(const RgbImage& drawn, const PictureRequest& request);

}  // namespace vkflux
