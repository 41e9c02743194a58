#include "model/vae/tiny.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <span>
#include <vector>

#include "autograd/ops.h"
#include "model/io/config_fields.h"
#include "model/io/tensor_source.h"
#include "model/vae/fold.h"
#include "vk/error.h"

namespace vkflux {
namespace {

constexpr int kMostLayers = 256;
constexpr int64_t kMostCell = 4096;
constexpr float kSoftLimit = 3;  // latents are bent to stay below it
constexpr int kPoolGroups = 4;   // of the norm that sees a whole picture, in TAEF2
constexpr float kPoolEps = 1e-5f;

struct Convolution {
  Tensor weight, bias;  // bias may be missing

  Tensor operator()(const Tensor& x, int stride = 1) const {
    const int pad = static_cast<int>(weight.dim(2)) / 2;
    return op::conv2d(x, weight, bias, {stride, pad, pad, pad, pad});
  }
};

/// What a unit adds to its input first, in TAEF2: it tells every place about the whole picture.
struct Pool {
  Convolution in, out;  // 1x1
  Tensor weight, bias;  // of the norm between them

  Tensor operator()(const Tensor& x) const {
    const Tensor y = op::group_norm(in(x), weight, bias, kPoolGroups, kPoolEps);
    return op::add(x, out(op::unary(y, op::Unary::relu)));
  }
};

/// A convolution by itself, or a residual unit of three.
struct TinyLayer {
  std::vector<Convolution> convolutions;
  std::optional<Convolution> skip;  // where a unit changes the number of channels
  std::optional<Pool> pool;

  bool is_unit() const { return convolutions.size() > 1; }
  int64_t in() const { return convolutions.front().weight.dim(1); }
  int64_t out() const { return convolutions.back().weight.dim(0); }
  Tensor unit(const Tensor& input) const {
    const Tensor x = pool ? (*pool)(input) : input;
    Tensor y = x;
    for (size_t i = 0; i < convolutions.size(); ++i) {
      if (i > 0) y = op::unary(y, op::Unary::relu);
      y = convolutions[i](y);
    }
    return op::unary(op::add(y, skip ? (*skip)(x) : x), op::Unary::relu);
  }
};

class TinyCodec final : public LatentCodec {
 public:
  std::vector<TinyLayer> encoder, decoder;
  float scaling = 1, shift = 0;
  int64_t patch = 1;  // the model's latents are squares of patch x patch cells of these

  Tensor decode(const Tensor& folded) const override {
    const Tensor latent = patch == 1 ? folded : unfold_squares(folded, patch);
    Tensor x = op::nchw_to_nhwc(op::affine(latent, 1 / scaling, shift));
    x = op::affine(op::unary(op::affine(x, 1 / kSoftLimit), op::Unary::tanh), kSoftLimit);
    for (size_t i = 0; i < decoder.size(); ++i) {
      const TinyLayer& layer = decoder[i];
      const bool last = i + 1 == decoder.size();
      if (layer.is_unit()) {
        x = layer.unit(x);
      } else if (i == 0) {
        x = op::unary(layer.convolutions[0](x), op::Unary::relu);
      } else {
        x = layer.convolutions[0](last ? x : op::upsample_nearest2(x));
      }
    }
    return op::affine(op::nhwc_to_nchw(x), 2, -1);
  }
  Tensor encode(const Tensor& image) const override {
    if (encoder.empty()) throw Error(ErrorCode::unsupported, "this tiny autoencoder has a decoder only");
    Tensor x = op::nchw_to_nhwc(op::affine(image, 0.5f, 0.5f));
    for (size_t i = 0; i < encoder.size(); ++i) {
      const TinyLayer& layer = encoder[i];
      const bool end = i == 0 || i + 1 == encoder.size();
      x = layer.is_unit() ? layer.unit(x) : layer.convolutions[0](x, end ? 1 : 2);
    }
    const Tensor latent = op::affine(op::nhwc_to_nchw(x), scaling, -shift * scaling);
    return patch == 1 ? latent : fold_squares(latent, patch);
  }
};

constexpr std::array<std::string_view, 4> kDecoder{"decoder.layers.", "taesd_decoder.", "decoder.", ""};
constexpr std::array<std::string_view, 3> kEncoder{"encoder.layers.", "taesd_encoder.", "encoder."};

/// Numbers of the layers behind a prefix, and whether each is a unit. stranger: gets a name with that prefix
/// and no number.
std::map<int, bool> places(const io::TensorSource& file, std::string_view prefix, std::string* stranger) {
  std::map<int, bool> found;
  for (const auto& [name, info] : file.tensors()) {
    if (!name.starts_with(prefix)) continue;
    const char *begin = name.data() + prefix.size(), *end = name.data() + name.size();
    int place = 0;
    const auto r = std::from_chars(begin, end, place);
    if (r.ec != std::errc() || r.ptr == begin || r.ptr == end || *r.ptr != '.' || place < 0 ||
        place >= kMostLayers) {
      *stranger = name;
    } else {
      found[place] |= std::string_view(r.ptr, end).starts_with(".conv.");
    }
  }
  return found;
}

class Reader {
 public:
  Reader(Device& device, const io::TensorSource& file) : device_(device), file_(file) {}

  /// The layers whose names begin with one of the prefixes, which stand for the same in different files.
  std::vector<TinyLayer> layers(std::span<const std::string_view> prefixes) const {
    for (const std::string_view prefix : prefixes) {
      std::string stranger;
      const std::map<int, bool> found = places(file_, prefix, &stranger);
      if (!stranger.empty() && !prefix.empty())
        fail(fmt::format("tensor {}: expected the number of a layer behind {}", io::shown(stranger), prefix));
      if (found.empty()) continue;
      std::vector<TinyLayer> out;
      for (const auto& [place, unit] : found) out.push_back(layer(fmt::format("{}{}.", prefix, place), unit));
      check(out, std::string(prefix));
      return out;
    }
    return {};
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::format, fmt::format("{}: {}", file_.path(), what));
  }
  TinyLayer layer(const std::string& prefix, bool unit) const {
    TinyLayer out;
    if (!unit) return {{convolution(prefix)}, {}, {}};
    for (const char* place : {"conv.0.", "conv.2.", "conv.4."})
      out.convolutions.push_back(convolution(prefix + place));
    if (file_.has(prefix + "skip.weight")) out.skip = convolution(prefix + "skip.");
    if (file_.has(prefix + "pool.0.weight")) {
      Pool pool{convolution(prefix + "pool.0."), convolution(prefix + "pool.3."), {}, {}};
      const int64_t width = pool.in.weight.dim(0);
      if (pool.in.weight.dim(1) != out.in() || pool.out.weight.dim(0) != out.in() ||
          pool.out.weight.dim(1) != width || width % kPoolGroups != 0)
        fail(fmt::format("{}pool: its convolutions don't fit the unit's {} channels and {} groups", prefix,
                         out.in(), kPoolGroups));
      pool.weight = tensor(prefix + "pool.1.weight", {width});
      pool.bias = tensor(prefix + "pool.1.bias", {width});
      out.pool = pool;
    }
    return out;
  }
  Convolution convolution(const std::string& prefix) const {
    constexpr int64_t kMostChannels = 4096;
    const std::vector<int64_t>& s = file_.info(prefix + "weight").shape;
    if (s.size() != 4 || s[2] != s[3] || (s[2] != 1 && s[2] != 3) || s[0] < 1 || s[1] < 1 ||
        s[0] > kMostChannels || s[1] > kMostChannels) {
      fail(fmt::format("{}weight: expected a convolution of 1x1 or 3x3, at most {} channels wide", prefix,
                       kMostChannels));
    }
    Convolution c{tensor(prefix + "weight", {s[0], s[1], s[2], s[3]}), {}};
    if (file_.has(prefix + "bias")) c.bias = tensor(prefix + "bias", {s[0]});
    return c;
  }
  Tensor tensor(const std::string& name, const Shape& shape) const {
    const std::vector<float> values = file_.read_f32(name);
    if (static_cast<int64_t>(values.size()) != shape.numel())
      fail(fmt::format("{} has {} values, expected {}", name, values.size(), shape.numel()));
    for (const float v : values) {
      if (!std::isfinite(v)) fail(fmt::format("{} holds a value that isn't finite", name));
    }
    return Tensor::from(device_, std::span<const float>(values), shape);
  }
  void check(const std::vector<TinyLayer>& layers, const std::string& prefix) const {
    if (layers.size() < 2 || layers.front().is_unit() || layers.back().is_unit())
      fail(fmt::format("the layers {}0 to the last must begin and end with a convolution", prefix));
    int64_t channels = layers.front().in();
    for (const TinyLayer& l : layers) {
      const int64_t in = channels;
      for (const Convolution& c : l.convolutions) {
        if (c.weight.dim(1) != channels) {
          fail(fmt::format("the layers {}: one reads {} channels and gets {}", prefix, c.weight.dim(1),
                           channels));
        }
        channels = c.weight.dim(0);
      }
      const bool fits = l.skip ? l.skip->weight.dim(1) == in && l.skip->weight.dim(0) == channels
                               : !l.is_unit() || in == channels;
      if (!fits) fail(fmt::format("the layers {}: a unit's skip doesn't fit its channels", prefix));
    }
  }

  Device& device_;
  const io::TensorSource& file_;
};

/// Pixels along a side of a cell: every convolution between the ends doubles the size.
int64_t cell_of(const std::vector<TinyLayer>& layers) {
  int64_t cell = 1;
  for (size_t i = 1; i + 1 < layers.size(); ++i) {
    if (!layers[i].is_unit() && cell < kMostCell) cell *= 2;
  }
  return cell;
}

void read_config(const std::string& path, TinyCodec& codec) {
  if (!io::is_folder(path) || !io::is_there(path + "/config.json")) return;
  const io::Json json = io::read_json(path + "/config.json");
  const std::string origin = path + "/config.json";
  io::refuse_other(json, "_class_name", {"AutoencoderTiny"}, origin);
  io::refuse_other(json, "act_fn", {"relu"}, origin);
  io::refuse_other(json, "upsample_fn", {"nearest"}, origin);
  io::refuse_other(json, "upsampling_scaling_factor", {2}, origin);
  codec.scaling = io::get_or<float>(json, "scaling_factor", 1, origin);
  codec.shift = io::get_or<float>(json, "shift_factor", 0, origin);
  if (!std::isfinite(codec.scaling) || codec.scaling == 0 || !std::isfinite(codec.shift))
    throw Error(ErrorCode::format,
                origin + ": scaling_factor and shift_factor must be finite, the first not 0");
}

}  // namespace

std::optional<TinySizes> tiny_sizes(const io::TensorSource& file, int64_t channels) {
  for (const std::string_view prefix : kDecoder) {
    std::string stranger;
    const std::map<int, bool> found = places(file, prefix, &stranger);
    if (found.size() < 2 || (!stranger.empty() && !prefix.empty())) continue;
    const std::string first = fmt::format("{}{}.weight", prefix, found.begin()->first);
    if (!file.has(first) || file.info(first).shape.size() != 4 || file.info(first).shape[1] < 1) return {};
    int64_t cell = 1, fold = 1;
    for (auto it = std::next(found.begin()); it != std::prev(found.end()); ++it) {
      if (!it->second && cell < kMostCell) cell *= 2;
    }
    const int64_t z = file.info(first).shape[1];
    while (fold < kMostCell && z * fold * fold < channels) ++fold;
    if (z * fold * fold != channels) fold = 1;
    return TinySizes{z * fold * fold, cell * fold};
  }
  return {};
}

std::shared_ptr<LatentCodec> load_tiny_codec(Device& device, const std::string& path, int64_t channels,
                                             int64_t cell) {
  const auto file = io::open_tensors(path);
  const Reader reader(device, *file);
  auto codec = std::make_shared<TinyCodec>();
  const auto fail = [&](const std::string& what) { throw Error(ErrorCode::format, path + ": " + what); };
  codec->decoder = reader.layers(kDecoder);
  codec->encoder = reader.layers(kEncoder);
  if (codec->decoder.empty())
    fail(
        "no tiny autoencoder's decoder: expected tensors such as decoder.layers.0.weight (vkflux inspect "
        "says what "
        "the file holds)");
  read_config(path, *codec);
  const int64_t z = codec->decoder.front().in(), folds = cell / cell_of(codec->decoder);
  if (folds > 1 && z * folds * folds == channels) codec->patch = folds;
  const int64_t squares = codec->patch * codec->patch;
  const auto same = [&](const char* what, int64_t has, int64_t wanted) {
    if (has != wanted)
      fail(fmt::format("its {} is {}, the model's is {}: it was made for another model", what, has, wanted));
  };
  same("number of latent channels", z * squares, channels);
  same("number of colours", codec->decoder.back().out(), 3);
  same("cell of the latent in pixels", cell_of(codec->decoder) * codec->patch, cell);
  if (!codec->encoder.empty()) {
    same("encoder's number of colours", codec->encoder.front().in(), 3);
    same("encoder's number of latent channels", codec->encoder.back().out() * squares, channels);
    same("encoder's cell in pixels", cell_of(codec->encoder) * codec->patch, cell);
  }
  return codec;
}

ComponentKind tiny_autoencoder_component() {
  return {"tiny autoencoder", [](const io::TensorSource& file, const io::Json&) -> std::optional<io::Json> {
            const auto named = [](const auto& t) {
              return t.first.starts_with(kDecoder[0]) || t.first.starts_with(kDecoder[1]);
            };
            if (std::none_of(file.tensors().begin(), file.tensors().end(), named)) return {};
            const std::optional<TinySizes> sizes = tiny_sizes(file, 0);
            if (!sizes) return {};
            const auto pools = [](const auto& t) { return t.first.find(".pool.0.") != std::string::npos; };
            const bool taef2 = std::any_of(file.tensors().begin(), file.tensors().end(), pools);
            io::Json out{{"latent_channels", sizes->channels}, {"pixels_per_cell", sizes->cell}};
            if (taef2) out["variant"] = "TAEF2";
            return out;
          }};
}

}  // namespace vkflux
