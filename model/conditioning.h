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
  Fit fit = Fit::stretch;  // of init, mask and control
  /// As the model's ReferenceRule says; else they only become whole tokens.
  bool resize_references = true;
  /// Kontext's first position counts 1, 2, ...; else all have 1 and lie side by side.
  bool count_references = false;
  int64_t max_area = 0;    // about so many pixels in the shape of the size; 0: the size itself
  bool composite = false;  // the init picture's own pixels where the mask keeps it
};

/// Error invalid_argument, with what to give, unless the model can do with these pictures; notes get
/// sentences on what is done otherwise than might be thought.
void check_pictures(const ModelInfo& model, const PictureRequest& request, const SamplingOptions& options,
                    std::vector<std::string>& notes);

struct PictureSize {
  int64_t width = 0, height = 0;
};
/// Width and height that a reference picture of width x height gets, in whole tokens. By the model's rule: of
/// the sizes that Kontext knows the one whose shape is nearest, or its own, cut where it is over 1024 * 1024
/// pixels. Without `resize` its own. Error invalid_argument where it is too small or too long for the model.
PictureSize reference_size(const ModelInfo& model, int64_t width, int64_t height, bool resize);
/// The picture in that size: resampled to it, or shrunk in its own shape and cut on all sides.
RgbImage prepared_reference(const ModelInfo& model, const RgbImage& image, bool resize);
/// The size of a drawn picture that nobody gave: that of the first reference picture under a rule that keeps
/// their shapes; else nothing, and the model's default is meant.
std::optional<PictureSize> size_from_references(const ModelInfo& model, const PictureRequest& request);
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
