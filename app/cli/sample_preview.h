// Quick decoding for `vkflux sample`: --taesd and --preview.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>

#include "app/outputs.h"
#include "model/latent_preview.h"
#include "model/pipeline.h"

namespace vkflux::cli {

struct PreviewArgs {
  std::string taesd, file;
  int64_t every = 1;
  bool taesd_preview_only = false;
};

/// Adds --taesd, --preview and --preview-every.
void add_preview_options(CLI::App& command, PreviewArgs& args);
void declare_preview(const PreviewArgs& args, FileUse& files);

/// Decodes with a tiny autoencoder, and writes pictures while they are drawn.
class Previewer {
 public:
  Previewer(Pipeline& pipeline, const PreviewArgs& args);
  /// The pictures' own decoder and the previews of a request.
  void prepare(GenerateRequest& request) const;

 private:
  void write(const Tensor& clean) const;

  PreviewArgs args_;
  std::shared_ptr<const LatentCodec> tiny_;
  std::optional<LinearPreview> linear_;
};

}  // namespace vkflux::cli
