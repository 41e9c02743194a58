// Quality against time: routed sampling over its knob, beside fewer steps of the full model.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/gallery.h"
#include "app/picture_metrics.h"

namespace vkflux {

/// Means over pictures that were compared with full attention at full steps.
struct QualityMean {
  int64_t pictures = 0;
  double square = 0, ssim = 0, cosine = 0, latent_cosine = 0, latent_square = 0;  // sums

  void add(const PictureMetrics& picture, const VectorMetrics& latent);
  double psnr() const;  // of the mean squared error; infinite when all pictures are equal
  double latent_rmse() const;
};

/// One setting, measured.
struct FrontierPoint {
  std::string series;  // "full", "routed" or "fewer steps"
  double knob = 0;     // of routed points
  int64_t steps = 0;
  double student_share = 0;
  std::vector<double> seconds;            // of denoising per picture, one for each repetition
  double flops = 0, attention_flops = 0;  // per picture
  QualityMean quality;
  std::vector<std::string> pngs;  // some pictures

  double median_seconds() const;
  std::string label() const;
  nlohmann::ordered_json json() const;
};

struct Frontier {
  std::string device, driver, model, ttr, controller, policy;
  int64_t width = 0, height = 0, steps = 0, pictures = 0, repeats = 0;
  float cfg = 1, guidance = 0;
  std::vector<std::string> shown;     // prompts of the pngs
  std::vector<FrontierPoint> points;  // the first is full attention at full steps

  nlohmann::ordered_json json() const;
  /// A self-contained page: plots, table, pictures.
  std::string html() const;
};

}  // namespace vkflux
