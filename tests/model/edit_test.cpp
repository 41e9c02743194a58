// Pictures in, pictures out: what diffusers draws with tiny random pipelines from given pictures
// (tests/data/make_edit_vectors.py), by Pipeline.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "autograd/ops.h"
#include "model/circular_codec.h"
#include "model/flux/rope.h"
#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/picture.h"
#include "model/io/png.h"
#include "model/io/resample.h"
#include "model/pipeline.h"
#include "model/vae/load.h"
#include "model/vae/tiny.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using nlohmann::json;
using test::device;
namespace fs = std::filesystem;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/edit/";
const std::string kTokenizers = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";

const json& cases() {
  static const json all = json(io::read_json(kData + "cases.json"));
  return all;
}

/// A model folder of the shared parts with one of the transformers.
class Folder : public test::TempFolder {
 public:
  Folder(const std::string& transformer, const std::string& pipeline) {
    for (const char* part : {"vae", "text_encoder", "text_encoder_2", "tokenizer", "scheduler"})
      fs::create_directory_symlink(kData + part, file(part));
    fs::create_directory_symlink(kTokenizers + "t5", file("tokenizer_2"));
    fs::create_directory_symlink(kData + "transformer_" + transformer, file("transformer"));
    io::atomic_write(
        file("model_index.json"),
        json{{"_class_name", pipeline}, {"vkflux", {{"txt_tokens", cases().at("text_tokens")}}}}.dump());
  }
};

RgbImage picture(const std::string& name) {
  return on_white(io::read_picture(kData + name).image);
}

GenerateRequest request_of(const json& c) {
  GenerateRequest r;
  r.prompts = {c.at("prompt")};
  r.noise = NoiseMode::mersenne;
  r.seed = c.at("seed");
  r.batch = c.at("batch");
  r.steps = c.at("steps");
  r.guidance = c.at("guidance").get<float>();
  r.width = c.at("width");
  r.height = c.at("height");
  r.cfg = c.value("cfg", 1.0f);
  r.negative = {c.value("negative", "")};
  if (c.contains("strength")) r.strength = c.at("strength").get<double>();
  if (c.contains("init")) r.init = picture(c.at("init"));
  if (c.contains("mask")) r.mask = io::read_picture(kData + c.at("mask").get<std::string>());
  if (c.contains("control")) r.control = picture(c.at("control"));
  if (c.contains("ref")) {
    const json refs = c.at("ref").is_array() ? c.at("ref") : json::array({c.at("ref")});
    for (const json& name : refs) r.references.push_back(picture(name));
  }
  r.resize_references = false;
  r.count_references = c.value("counted", false);
  r.max_area = c.value("max_area", int64_t{0});
  return r;
}

int largest_difference(const RgbImage& a, const RgbImage& b) {
  if (a.width != b.width || a.height != b.height) return 256;
  int most = 0;
  for (size_t i = 0; i < a.rgb.size(); ++i) most = std::max(most, std::abs(a.rgb[i] - b.rgb[i]));
  return most;
}

TEST(Edit, DrawsWhatDiffusersDraws) {
  std::map<std::string, std::unique_ptr<Folder>> folders;
  std::map<std::string, std::unique_ptr<Pipeline>> pipelines;
  for (const json& c : cases().at("cases")) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const std::string kind = c.at("transformer"), cls = c.at("pipeline");
    auto& folder = folders[kind + cls];
    auto& pipeline = pipelines[kind + cls];
    if (!folder) {
      folder = std::make_unique<Folder>(kind, cls);
      pipeline = Pipeline::load(device(), folder->path());
    }
    const GenerateResult r = pipeline->generate(request_of(c))->run();
    ASSERT_EQ(r.images.size(), c.at("images").size());
    for (size_t i = 0; i < r.images.size(); ++i)
      EXPECT_LE(largest_difference(r.images[i], picture(c.at("images")[i])), 1) << i;
  }
}

json case_named(const std::string& name) {
  for (const json& c : cases().at("cases")) {
    if (c.at("name") == name) return c;
  }
  throw std::runtime_error(name);
}

TEST(Edit, RecordedPassesGiveTheSameBits) {
  for (const char* name : {"kontext-two", "fill", "inpaint-batch-cfg"}) {
    json c = case_named(name);
    const Folder folder(c.at("transformer"), c.at("pipeline"));
    const auto pipeline = Pipeline::load(device(), folder.path());
    GenerateRequest r = request_of(c);
    r.steps = 4;
    const std::vector<float> replayed = pipeline->generate(r)->run().latents.to_host();
    r.replay = false;
    EXPECT_EQ(pipeline->generate(r)->run().latents.to_host(), replayed) << name;
  }
}

TEST(Edit, StudentsServeReferencesToo) {
  const json c = case_named("kontext");
  const Folder folder("plain", "FluxKontextPipeline");
  const auto pipeline = Pipeline::load(device(), folder.path());
  const std::string path = folder.file("students.safetensors");
  save_students(path, test::random_students(pipeline->info().layout, true), io::FileDType::f32);
  pipeline->install_students(path);
  GenerateRequest r = request_of(c);
  const GenerateResult full = pipeline->generate(r)->run();
  r.router = std::make_shared<FixedRouter>(std::vector<uint8_t>{1});
  const GenerateResult routed = pipeline->generate(r)->run();
  for (const StepReport& step : routed.reports) {
    EXPECT_EQ(step.student, std::vector<int>{0});
    EXPECT_TRUE(step.refused.empty());
    // 8 tokens of text, 24 drawn and as many of the reference: full attention over all of them.
    EXPECT_EQ(step.full_attention_flops, full.reports[0].full_attention_flops);
  }
  r.references.clear();
  const GenerateResult alone = pipeline->generate(r)->run();
  const double ratio = full.reports[0].full_attention_flops / alone.reports[0].full_attention_flops;
  EXPECT_NEAR(ratio, 56.0 * 56 / (32 * 32), 0.05);
  EXPECT_NE(alone.latents.to_host(), routed.latents.to_host());
}

TEST(Edit, ModelsSayWhatTheyNeed) {
  const auto refused = [](const std::string& kind, const std::string& cls,
                          const std::vector<std::string>& words,
                          const std::function<void(GenerateRequest&)>& change) {
    const Folder folder(kind, cls);
    const auto pipeline = Pipeline::load(device(), folder.path());
    GenerateRequest r;
    r.prompts = {"x"};
    r.width = r.height = 16;
    change(r);
    test::expect_error(ErrorCode::invalid_argument, words, [&] { pipeline->generate(r); });
  };
  const RgbImage image{4, 4, std::vector<uint8_t>(48, 9)};
  const io::Picture mask{to_image8(image), {}};
  refused("fill", "FluxFillPipeline", {"--init", "--mask"}, [](GenerateRequest&) {});
  refused("fill", "FluxFillPipeline", {"--mask"}, [&](GenerateRequest& r) { r.init = image; });
  refused("control", "FluxControlPipeline", {"--control"}, [](GenerateRequest&) {});
  refused("plain", "FluxPipeline", {"--control"}, [&](GenerateRequest& r) { r.control = image; });
  refused("plain", "FluxPipeline", {"--init"}, [&](GenerateRequest& r) { r.mask = mask; });
  refused("fill", "FluxFillPipeline", {"Fill"}, [&](GenerateRequest& r) {
    r.init = image;
    r.mask = mask;
    r.references = {image};
  });
  refused("plain", "FluxKontextPipeline", {"reference", "4x4"}, [&](GenerateRequest& r) {
    r.references = {RgbImage{3, 4, std::vector<uint8_t>(36)}};
  });
  refused("plain", "FluxPipeline", {"init image"}, [&](GenerateRequest& r) {
    r.init = RgbImage{4, 4, std::vector<uint8_t>(47)};
  });
  const auto opens = [](const std::string& kind, const std::string& cls) {
    const Folder folder(kind, cls);
    Pipeline::load(device(), folder.path());
  };
  test::expect_error(ErrorCode::format, {"FluxFillPipeline", "16"},
                     [&] { opens("plain", "FluxFillPipeline"); });
  test::expect_error(ErrorCode::format, {"FluxControlPipeline"},
                     [&] { opens("fill", "FluxControlPipeline"); });
  test::expect_error(ErrorCode::unsupported, {"FluxControlNetPipeline"},
                     [&] { opens("plain", "FluxControlNetPipeline"); });
  opens("fill", "FluxPipeline");  // a single Fill transformer in another folder
}

Tensor rolled(const Tensor& x, int dim, int64_t by) {
  return op::contiguous(
      op::concat({op::narrow(x, dim, by, x.dim(dim) - by), op::narrow(x, dim, 0, by)}, dim));
}

double largest(const Tensor& a, const Tensor& b) {
  const std::vector<float> x = a.to_host(), y = b.to_host();
  double most = 0;
  for (size_t i = 0; i < x.size(); ++i) most = std::max(most, std::abs(static_cast<double>(x[i]) - y[i]));
  return most;
}

// What tiles has no border: shifted around, everything stays as it was.
TEST(Edit, TexturesHaveNoBorder) {
  const CircularCodec codec(load_tiny_codec(device(), kData + "taesd", 4, 2), true, true);
  const Tensor z = op::normal(device(), {1, 4, 9, 7}, 3, 0);
  const Tensor picture = codec.decode(z);
  ASSERT_EQ(picture.shape(), (Shape{1, 3, 18, 14}));
  EXPECT_LT(largest(codec.decode(rolled(rolled(z, 2, 4), 3, 5)), rolled(rolled(picture, 2, 8), 3, 10)), 1e-5);
  const Tensor latent = codec.encode(picture);
  EXPECT_LT(largest(codec.encode(rolled(picture, 3, 6)), rolled(latent, 3, 3)), 1e-4);

  TokenLayout tokens;
  tokens.rows = 3;
  tokens.columns = 5;
  tokens.wrap_columns = true;
  const std::vector<float> periods = flux1_periods(tokens);
  std::vector<float> ids = flux1_ids(tokens), further = ids;
  ASSERT_EQ(periods.size(), ids.size());
  for (size_t i = 2; i < ids.size(); i += 3) further[i] += 5;
  const std::vector<int64_t> axes{4, 6, 6};
  EXPECT_LT(largest(rope_table(device(), ids, 1, axes, 10000, periods),
                    rope_table(device(), further, 1, axes, 10000, periods)),
            1e-5);
  // Rows don't wrap: they are those of a plain picture.
  const std::vector<float> plain = rope_table(device(), ids, 1, axes, 10000).to_host();
  const std::vector<float> wrapped = rope_table(device(), ids, 1, axes, 10000, periods).to_host();
  for (size_t i = 0; i < plain.size(); ++i) {
    if (i % 16 < 10) {
      EXPECT_EQ(plain[i], wrapped[i]) << i;
    }
  }
}

TEST(Edit, TinyAutoencodersTakeTheVaesPlace) {
  const Folder folder("plain", "FluxPipeline");
  GenerateRequest r;
  r.prompts = {"red apple"};
  r.width = r.height = 16;
  r.steps = 2;
  const auto plain = Pipeline::load(device(), folder.path());
  ModelOptions options;
  options.files["vae"] = kData + "taesd";
  const auto tiny = Pipeline::load(device(), folder.path(), options);
  const RgbImage drawn = tiny->generate(r)->run().images.at(0);
  GenerateRequest decoded = r;
  decoded.decoder = load_tiny_codec(device(), kData + "taesd", 4, 2);
  EXPECT_EQ(drawn.rgb, plain->generate(decoded)->run().images.at(0).rgb);
  // It reads pictures, too, and fits the transformer or is refused.
  r.init = drawn;
  r.strength = 0.5;
  EXPECT_EQ(tiny->generate(r)->run().images.at(0).rgb.size(), drawn.rgb.size());
  options.files["vae"] = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/flux2/taef2.safetensors";
  test::expect_error(ErrorCode::format, {"autoencoder"},
                     [&] { Pipeline::load(device(), folder.path(), options); });
  // FLUX.2's is another one.
  const test::TempFolder other;
  AutoencoderConfig flux2 = autoencoder_of("flux2");
  flux2.encoder_widths = flux2.decoder_widths = {8, 8};
  flux2.groups = 4;
  AutoencoderKL model(flux2);
  allocate(parameters(model), device());
  initialise(parameters(model), autoencoder_init(), 1);
  save_autoencoder(other.path(), model, 16);
  options.files["vae"] = other.path();
  test::expect_error(ErrorCode::unsupported, {"FLUX.2 autoencoder"},
                     [&] { Pipeline::load(device(), folder.path(), options); });
}

TEST(Edit, PreviewsComeBetweenSteps) {
  const json c = case_named("img2img");
  const Folder folder("plain", "FluxPipeline");
  const auto pipeline = Pipeline::load(device(), folder.path());
  GenerateRequest r = request_of(c);
  r.steps = 10;
  r.strength = 0.7;
  r.preview_every = 2;
  std::vector<int64_t> steps;
  r.preview = [&](int64_t step, const Tensor& clean) {
    steps.push_back(step);
    EXPECT_EQ(clean.shape(), (Shape{1, 4, 8, 12}));
  };
  pipeline->generate(r)->run();
  EXPECT_EQ(steps, (std::vector<int64_t>{5, 7, 9}));
}

std::vector<uint8_t> bytes_of(const std::string& hex) {
  std::vector<uint8_t> out;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    out.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return out;
}

TEST(Edit, ResamplesAsPillow) {
  const std::map<std::string, io::Filter> filters{{"nearest", io::Filter::nearest},
                                                  {"bilinear", io::Filter::bilinear},
                                                  {"bicubic", io::Filter::bicubic},
                                                  {"lanczos", io::Filter::lanczos}};
  const json all = json(io::read_json(kData + "resampled.json"));
  for (const json& row : all.at("resampled")) {
    const int width = row.at("width"), height = row.at("height"), channels = row.at("channels");
    const int to_width = row.at("to")[0], to_height = row.at("to")[1];
    const std::vector<uint8_t> in = bytes_of(row.at("input"));
    for (const auto& [name, output] : row.at("outputs").items()) {
      SCOPED_TRACE(name + " " + std::to_string(width) + "x" + std::to_string(height) + "x" +
                   std::to_string(channels));
      const io::Filter filter = filters.at(name);
      const std::vector<uint8_t> wanted = bytes_of(output);
      if (channels == 3) {
        EXPECT_EQ(io::resampled(io::Samples8{width, height, 3, in}, to_width, to_height, filter).data,
                  wanted);
      } else {
        const io::Image8 image{width, height, in};
        EXPECT_EQ(io::resampled(image, to_width, to_height, filter).rgba, wanted);
        EXPECT_EQ(io::to_grey(image).data, bytes_of(row.at("grey")));
      }
    }
  }
  for (const json& s : all.at("sizes")) {
    const int64_t width = s[0], height = s[1], unit = s[2];
    ModelInfo kontext;
    kontext.layout.geometry.patch = 1;
    kontext.pixels_per_cell = unit;
    const PictureSize reference = reference_size(kontext, width, height, true);
    const PictureSize area = size_of_area(width, height, 1024 * 1024, unit);
    EXPECT_EQ((std::vector<int64_t>{reference.width, reference.height, area.width, area.height}),
              (std::vector<int64_t>{s[3], s[4], s[5], s[6]}))
        << width << "x" << height;
  }
}

}  // namespace
}  // namespace vkflux
