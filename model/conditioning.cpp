#include "model/conditioning.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <tuple>

#include "autograd/ops.h"
#include "model/io/resample.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int64_t kMaxSide = 16384;
constexpr uint8_t kRepaint = 128;  // grey from which a mask repaints
// Of the pictures that FLUX.2 refers to, and the distance of their indices.
constexpr int64_t kLeastReferenceSide = 64, kMostReferenceAspect = 8, kMostReferenceArea = 1024 * 1024,
                  kReferenceStep = 10;

// The sizes that Kontext was trained on.
constexpr std::array<PictureSize, 17> kReferenceSizes{{{672, 1568},
                                                       {688, 1504},
                                                       {720, 1456},
                                                       {752, 1392},
                                                       {800, 1328},
                                                       {832, 1248},
                                                       {880, 1184},
                                                       {944, 1104},
                                                       {1024, 1024},
                                                       {1104, 944},
                                                       {1184, 880},
                                                       {1248, 832},
                                                       {1328, 800},
                                                       {1392, 752},
                                                       {1456, 720},
                                                       {1504, 688},
                                                       {1568, 672}}};

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, what);
}

void check_image(const char* what, const RgbImage& image) {
  if (image.width >= 1 && image.height >= 1 && image.width <= kMaxSide && image.height <= kMaxSide &&
      image.rgb.size() == static_cast<size_t>(image.width * image.height * 3)) {
    return;
  }
  refuse(fmt::format("{} of {} x {} with {} bytes", what, image.width, image.height, image.rgb.size()));
}

void check_mask(const io::Picture& mask) {
  const io::Image8& m = mask.image;
  if (m.width < 1 || m.height < 1 ||
      m.rgba.size() != size_t{4} * static_cast<size_t>(m.width) * static_cast<size_t>(m.height)) {
    refuse(fmt::format("a mask of {} x {} with {} bytes", m.width, m.height, m.rgba.size()));
  }
}

io::Samples8 soft_mask(const PictureRequest& request, int64_t width, int64_t height) {
  return io::mask_samples(*request.mask, static_cast<int>(width), static_cast<int>(height),
                          request.fit == Fit::crop);
}

/// 1 where a pixel is repainted.
std::vector<float> hard_mask(const PictureRequest& request, int64_t width, int64_t height) {
  const io::Samples8 grey = soft_mask(request, width, height);
  std::vector<float> out;
  out.reserve(grey.data.size());
  for (const uint8_t g : grey.data) out.push_back(g >= kRepaint ? 1.0f : 0.0f);
  return out;
}

/// Of every latent cell the mask at its first pixel, for all channels: packed [1, tokens, channels].
Tensor repaint_tokens(Device& device, const ModelInfo& m, const std::vector<float>& mask, int64_t width,
                      int64_t height) {
  const int64_t f = m.pixels_per_cell, rows = height / f, columns = width / f;
  std::vector<float> cells;
  for (int64_t c = 0; c < m.layout.geometry.channels; ++c) {
    for (int64_t y = 0; y < rows; ++y) {
      for (int64_t x = 0; x < columns; ++x) cells.push_back(mask[static_cast<size_t>(y * f * width + x * f)]);
    }
  }
  return m.layout.geometry.pack(
      Tensor::from(device, std::span<const float>(cells), {1, m.layout.geometry.channels, rows, columns}));
}

/// The mask in full resolution as tokens: the f x f pixels of a cell become channels, and so do the cells.
Tensor mask_tokens(Device& device, const ModelInfo& m, const std::vector<float>& mask, int64_t width,
                   int64_t height) {
  const int64_t f = m.pixels_per_cell, rows = height / f, columns = width / f;
  std::vector<float> cells;
  cells.reserve(mask.size());
  for (int64_t py = 0; py < f; ++py) {
    for (int64_t px = 0; px < f; ++px) {
      for (int64_t y = 0; y < rows; ++y) {
        for (int64_t x = 0; x < columns; ++x)
          cells.push_back(mask[static_cast<size_t>((y * f + py) * width + x * f + px)]);
      }
    }
  }
  return m.layout.geometry.pack(
      Tensor::from(device, std::span<const float>(cells), {1, f * f, rows, columns}));
}

/// The picture as planes in [-1, 1], `painted` pixels grey.
Tensor masked_picture(Device& device, const RgbImage& image, const std::vector<float>& painted) {
  const size_t plane = painted.size();
  std::vector<float> host(3 * plane);
  for (size_t i = 0; i < host.size(); ++i)
    host[i % 3 * plane + i / 3] = (2 * (static_cast<float>(image.rgb[i]) / 255) - 1) * (1 - painted[i / 3]);
  return Tensor::from(device, std::span<const float>(host), {1, 3, image.height, image.width});
}

/// What FLUX.2 was made for.
void check_reference_shape(int64_t width, int64_t height) {
  if (std::min(width, height) < kLeastReferenceSide) {
    refuse(fmt::format("a reference picture of {}x{} pixels: this model reads sides of {} pixels at least",
                       width, height, kLeastReferenceSide));
  }
  if (std::max(width, height) > kMostReferenceAspect * std::min(width, height)) {
    refuse(fmt::format("a reference picture of {}x{} pixels: this model reads shapes up to {}:1", width,
                       height, kMostReferenceAspect));
  }
}

/// Both sides rounded down, as diffusers does.
PictureSize capped_size(int64_t width, int64_t height) {
  if (width * height <= kMostReferenceArea) return {width, height};
  const double scale =
      std::sqrt(static_cast<double>(kMostReferenceArea) / static_cast<double>(width * height));
  return {static_cast<int64_t>(static_cast<double>(width) * scale),
          static_cast<int64_t>(static_cast<double>(height) * scale)};
}

RgbImage middle(const RgbImage& image, const PictureSize& size) {
  const int64_t left = (image.width - size.width) / 2, top = (image.height - size.height) / 2;
  RgbImage out{size.width, size.height, {}};
  for (int64_t y = top; y < top + size.height; ++y) {
    const auto row = image.rgb.begin() + 3 * (y * image.width + left);
    out.rgb.insert(out.rgb.end(), row, row + 3 * size.width);
  }
  return out;
}

/// Places each reference so that none covers another: beside the earlier ones where they are higher than
/// wide with it, below them else.
void place(std::vector<ReferenceGrid>& grids, ReferenceGrid next, const ModelInfo& m, bool count) {
  const int64_t patch = m.layout.geometry.patch;
  if (m.reference_rule == ReferenceRule::capped_area) {
    next.index = kReferenceStep * (static_cast<int64_t>(grids.size()) + 1);
    grids.push_back(next);
    return;
  }
  if (count) {
    next.index = static_cast<int64_t>(grids.size()) + 1;
    grids.push_back(next);
    return;
  }
  int64_t height = 0, width = 0;  // of what is there, in cells
  for (const ReferenceGrid& g : grids) {
    height = std::max(height, (g.row + g.rows) * patch);
    width = std::max(width, (g.column + g.columns) * patch);
  }
  if (next.rows * patch + height > next.columns * patch + width) {
    next.column = width / patch;
  } else {
    next.row = height / patch;
  }
  grids.push_back(next);
}

}  // namespace

PictureSize reference_size(const ModelInfo& m, int64_t width, int64_t height, bool resize) {
  const int64_t unit = m.pixels_per_token();
  const bool capped = m.reference_rule == ReferenceRule::capped_area;
  if (capped) check_reference_shape(width, height);
  const PictureSize shrunk = capped && resize ? capped_size(width, height) : PictureSize{width, height};
  const PictureSize own{shrunk.width / unit * unit, shrunk.height / unit * unit};
  if (own.width < unit || own.height < unit)
    refuse(fmt::format("a reference picture of {}x{} pixels: it must have {}x{} at least", width, height,
                       unit, unit));
  if (capped || !resize) return own;
  const double aspect = static_cast<double>(own.width) / static_cast<double>(own.height);
  const auto rank = [&](const PictureSize& s) {
    return std::tuple(std::abs(aspect - static_cast<double>(s.width) / static_cast<double>(s.height)),
                      s.width, s.height);
  };
  const PictureSize best =
      *std::min_element(kReferenceSizes.begin(), kReferenceSizes.end(),
                        [&](const PictureSize& a, const PictureSize& b) { return rank(a) < rank(b); });
  return {best.width / unit * unit, best.height / unit * unit};
}

RgbImage prepared_reference(const ModelInfo& m, const RgbImage& image, bool resize) {
  const PictureSize size = reference_size(m, image.width, image.height, resize);
  if (m.reference_rule == ReferenceRule::trained_sizes) return in_size(image, size.width, size.height);
  if (!resize) return middle(image, size);
  const PictureSize shrunk = capped_size(image.width, image.height);
  return middle(in_size(image, shrunk.width, shrunk.height), size);
}

std::optional<PictureSize> size_from_references(const ModelInfo& m, const PictureRequest& r) {
  if (m.reference_rule == ReferenceRule::trained_sizes || r.references.empty()) return {};
  const RgbImage& first = r.references[0];
  check_image("a reference picture", first);
  return reference_size(m, first.width, first.height, r.resize_references);
}

PictureSize size_of_area(int64_t width, int64_t height, int64_t area, int64_t unit) {
  const double aspect = static_cast<double>(width) / static_cast<double>(height);
  const double a = static_cast<double>(area);
  // Python's round(): halves to even.
  const auto w = static_cast<int64_t>(std::nearbyint(std::sqrt(a * aspect)));
  const auto h = static_cast<int64_t>(std::nearbyint(std::sqrt(a / aspect)));
  return {w / unit * unit, h / unit * unit};
}

void check_pictures(const ModelInfo& m, const PictureRequest& r, const SamplingOptions& o,
                    std::vector<std::string>& notes) {
  if (r.init) check_image("an init image", *r.init);
  if (r.control) check_image("a control picture", *r.control);
  if (r.mask) check_mask(*r.mask);
  for (const RgbImage& image : r.references) {
    check_image("a reference picture", image);
    reference_size(m, image.width, image.height, r.resize_references);
  }
  const bool fill = m.extra == ExtraChannels::fill;
  if (fill && !(r.init && r.mask)) {
    refuse(fmt::format(
        "this is a Fill model, which repaints a part of a picture: give {}",
        r.init ? "--mask, white where it paints" : "--init, the picture, and --mask, white where it paints"));
  }
  if (m.extra == ExtraChannels::control && !r.control) {
    refuse(
        "this is a control model (Canny, Depth), which follows a picture of edges or depths: give it with "
        "--control");
  }
  if (r.control && m.extra != ExtraChannels::control) {
    refuse(
        fmt::format("--control is for transformers that read twice as many channels as they give (Canny, "
                    "Depth); this one reads none of a control picture{}",
                    fill ? ", but a mask's: it is a Fill model" : ""));
  }
  if (r.mask && !r.init) refuse("a mask says what of a picture is repainted: give the picture with --init");
  if (r.composite && !r.mask)
    refuse("--composite puts a picture's own pixels back where a mask keeps them: give --mask");
  if (!r.references.empty() && m.extra != ExtraChannels::none) {
    refuse(fmt::format("reference pictures are for Kontext and FLUX.2 models; this is a {} model",
                       fill ? "Fill" : "control (Canny, Depth)"));
  }
  if (!r.references.empty() && !m.references) {
    notes.emplace_back(
        "this model's files don't say that it is a Kontext model: another one doesn't understand "
        "reference pictures");
  }
  if (m.references && m.reference_rule == ReferenceRule::trained_sizes && r.references.empty())
    notes.emplace_back(
        "this is a Kontext model, and no reference picture was given (--ref): it draws from text");
  const auto squeezed = [&](const char* what, int64_t width, int64_t height) {
    if (width * o.height == height * o.width) return;
    notes.push_back(
        r.fit == Fit::crop
            ? fmt::format("{} of {}x{} is cut to the shape of {}x{}", what, width, height, o.width, o.height)
            : fmt::format("{} of {}x{} is stretched to {}x{}; --fit crop takes its middle instead", what,
                          width, height, o.width, o.height));
  };
  if (r.init) squeezed("the init image", r.init->width, r.init->height);
  if (r.control) squeezed("the control picture", r.control->width, r.control->height);
}

Tensor upload_picture(Device& device, const RgbImage& image) {
  const auto plane = static_cast<size_t>(image.width * image.height);
  std::vector<float> host(3 * plane);
  for (size_t i = 0; i < host.size(); ++i)
    host[i % 3 * plane + i / 3] = static_cast<float>(image.rgb[i]) / 127.5f - 1;
  return Tensor::from(device, std::span<const float>(host), {1, 3, image.height, image.width});
}

PictureInputs encode_pictures(Device& device, const ModelInfo& m, const PictureRequest& r, int64_t width,
                              int64_t height,
                              const std::function<std::shared_ptr<const LatentCodec>()>& codec) {
  PictureInputs out;
  if (!r.init && !r.control && r.references.empty()) return out;
  const auto autoencoder = codec();
  const LatentGeometry& geometry = m.layout.geometry;
  const auto tokens_of = [&](const Tensor& image) { return geometry.pack(autoencoder->encode(image)); };
  if (r.init) {
    const RgbImage init = in_size(*r.init, width, height, r.fit);
    out.clean = autoencoder->encode(upload_picture(device, init));
    if (r.mask) {
      const std::vector<float> mask = hard_mask(r, width, height);
      if (m.extra == ExtraChannels::fill) {
        out.condition.set(kExtraChannels, op::concat({tokens_of(masked_picture(device, init, mask)),
                                                      mask_tokens(device, m, mask, width, height)},
                                                     2));
      } else {
        out.repaint = repaint_tokens(device, m, mask, width, height);
      }
    }
  }
  if (r.control) {
    const RgbImage control = in_size(*r.control, width, height, r.fit);
    out.condition.set(kExtraChannels, tokens_of(upload_picture(device, control)));
  }
  std::vector<Tensor> references;
  const int64_t unit = m.pixels_per_token();
  for (const RgbImage& image : r.references) {
    const RgbImage prepared = prepared_reference(m, image, r.resize_references);
    references.push_back(tokens_of(upload_picture(device, prepared)));
    place(out.references, {prepared.height / unit, prepared.width / unit}, m, r.count_references);
  }
  if (!references.empty()) {
    out.condition.set(kReferenceTokens, references.size() == 1 ? references[0] : op::concat(references, 1));
  }
  return out;
}

RgbImage composited(const RgbImage& drawn, const PictureRequest& r) {
  const RgbImage init = in_size(*r.init, drawn.width, drawn.height, r.fit);
  const io::Samples8 mask = soft_mask(r, drawn.width, drawn.height);
  RgbImage out = drawn;
  for (size_t i = 0; i < out.rgb.size(); ++i) {
    const int m = mask.data[i / 3];
    out.rgb[i] = static_cast<uint8_t>((m * drawn.rgb[i] + (255 - m) * init.rgb[i] + 127) / 255);
  }
  return out;
}

}  // namespace vkflux
