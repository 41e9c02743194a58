// Pictures in, pictures out: what diffusers draws with tiny random pipelines from given pictures
// (tests/data/make_edit_vectors.py), by Pipeline.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/io/file.h"
#include "model/io/json.h"
#include "model/io/picture.h"
#include "model/io/png.h"
#include "model/io/resample.h"
#include "model/pipeline.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
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
  r.negative = c.value("negative", "");
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
    const PictureSize reference = reference_size(width, height, unit, true);
    const PictureSize area = size_of_area(width, height, 1024 * 1024, unit);
    EXPECT_EQ((std::vector<int64_t>{reference.width, reference.height, area.width, area.height}),
              (std::vector<int64_t>{s[3], s[4], s[5], s[6]}))
        << width << "x" << height;
  }
}

}  // namespace
}  // namespace vkflux
