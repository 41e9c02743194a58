#include "app/cli/sample_preview.h"

#include <algorithm>
#include <cmath>

#include "app/cli/numbers.h"
#include "model/io/picture_file.h"
#include "model/vae/tiny.h"
#include "train/picture_grid.h"
#include "vk/error.h"

namespace vkflux::cli {
namespace {

constexpr int kGridColumns = 4, kPreviewQuality = 90;

}  // namespace

void add_preview_options(CLI::App& c, PreviewArgs& o) {
  CLI::Option* taesd =
      c.add_option("--taesd,--tae", o.taesd,
                   "decode with this tiny autoencoder (TAEF1, TAEF2; .safetensors, or a folder of diffusers) "
                   "in place of the model's: much quicker, a little less sharp")
          ->type_name("FILE");
  CLI::Option* preview =
      c.add_option("--preview", o.file,
                   "write what the picture is going to be to this .png, .jpg or .webp while it is "
                   "drawn: by --taesd, else by a linear map of latents to colours")
          ->type_name("FILE");
  c.add_option("--preview-every", o.every, "steps between previews")
      ->capture_default_str()
      ->transform(whole(1, kMostSamplingSteps))
      ->needs(preview);
  c.add_flag("--taesd-preview-only", o.taesd_preview_only,
             "use --taesd for previews, and the model's own autoencoder for pictures")
      ->needs(taesd)
      ->needs(preview);
}

void declare_preview(const PreviewArgs& args, FileUse& files) {
  files.reads("--taesd", args.taesd);
  files.writes("--preview", args.file);
  if (!args.file.empty() && !io::picture_format(args.file)) {
    throw Error(ErrorCode::invalid_argument,
                "--preview " + args.file + ": expected a name that ends with .png, .jpg or .webp");
  }
}

Previewer::Previewer(Pipeline& pipeline, const PreviewArgs& args) : args_(args) {
  const ModelInfo& info = pipeline.info();
  const int64_t channels = info.layout.geometry.channels, cell = info.pixels_per_cell;
  if (!args.taesd.empty()) tiny_ = load_tiny_codec(pipeline.device(), args.taesd, channels, cell);
  if (!args.file.empty() && !tiny_)
    linear_ = LinearPreview::fit(pipeline.device(), *pipeline.codec(), channels, cell);
}

void Previewer::prepare(GenerateRequest& request) const {
  if (tiny_ && !args_.taesd_preview_only) request.decoder = tiny_;
  if (args_.file.empty()) return;
  request.preview_every = args_.every;
  request.preview = [this](int64_t, const Tensor& clean) { write(clean); };
}

void Previewer::write(const Tensor& clean) const {
  const std::vector<RgbImage> pictures = tiny_ ? to_pictures(tiny_->decode(clean)) : linear_->draw(clean);
  std::vector<io::Image8> images;
  for (const RgbImage& p : pictures) images.push_back(to_image8(p));
  const io::Image8 sheet =
      images.size() == 1 ? images[0]
                         : picture_grid(images, std::min<int>(kGridColumns, static_cast<int>(images.size())));
  io::atomic_write(args_.file,
                   io::encode_picture(sheet, *io::picture_format(args_.file), kPreviewQuality, {}));
}

}  // namespace vkflux::cli
