// One model in every layout that people have: the same picture bit for bit, or what is missing by name.
#include "model/model_files.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "model/io/file.h"
#include "model/io/names.h"
#include "model/pipeline.h"
#include "tests/harness/environment_variable.h"
#include "tests/harness/expect_error.h"
#include "tests/harness/gguf_writer.h"
#include "tests/harness/gpu.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_pipeline.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;
using test::device;
using test::EnvironmentVariable;
using test::expect_error;
using Tensors = std::vector<io::TensorData>;

const std::string kTokenizers = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";

ModelOptions six_tokens() {
  ModelOptions options;
  options.text_tokens = 6;
  return options;
}

std::vector<float> picture(const std::string& model, const ModelOptions& options) {
  const auto pipeline = Pipeline::load(device(), model, options);
  GenerateRequest request;
  request.prompts = {"a cat"};
  request.steps = 1;
  request.width = 16;
  request.height = 8;
  request.cfg = 1;
  const auto job = pipeline->generate(request);
  const GenerateResult& result = job->run();
  std::vector<float> out = result.latents.to_host();
  for (const float v : result.images[0].rgb) out.push_back(static_cast<float>(v));
  return out;
}

/// Adds a part of the reference folder under our names, or its own, behind a prefix.
void add_part(Tensors& out, const std::string& part, const std::string& prefix, const io::NameTable& table) {
  const auto source = io::open_tensors(test::plain_pipeline() + "/" + part);
  const io::NamedTensors named(*source, table);
  for (const std::string& name : named.names())
    out.push_back(io::tensor_data(prefix + name, named.shape(name), named.read_f32(name)));
}

std::string save(const std::string& path, const Tensors& tensors) {
  fs::create_directories(fs::path(path).parent_path());
  io::write_safetensors(path, tensors);
  return path;
}

class ModelLayouts : public testing::Test {
 protected:
  test::TempFolder folder_;
  // Caches and vocabularies of whoever runs the tests are none of their inputs.
  EnvironmentVariable cache_{"HF_HUB_CACHE", folder_.file("hub")},
      data_{"XDG_DATA_HOME", folder_.file("data")};

  static const std::vector<float>& reference() {
    static const std::vector<float> want = picture(test::plain_pipeline(), six_tokens());
    return want;
  }
  std::string transformer(const std::string& name, const std::string& prefix = "") {
    Tensors out;
    add_part(out, "transformer", prefix, io::flux1_names());
    return save(folder_.file(name), out);
  }
  std::string clip(const std::string& name) {
    Tensors out;
    add_part(out, "text_encoder", "", io::clip_names());
    return save(folder_.file(name), out);
  }
  std::string t5(const std::string& name) {
    Tensors out;
    add_part(out, "text_encoder_2", "", io::t5_names());
    return save(folder_.file(name), out);
  }
  std::string vae(const std::string& name) {
    Tensors out;
    add_part(out, "vae", "", io::vae_names(2));
    return save(folder_.file(name), out);
  }
  ModelOptions with_tokenizers() const {
    ModelOptions options = six_tokens();
    options.files = {{"tokenizer", kTokenizers + "clip"}, {"tokenizer_2", kTokenizers + "t5/spiece.model"}};
    return options;
  }
};

TEST_F(ModelLayouts, ATransformerBesidePartsByFlags) {
  ModelOptions options = with_tokenizers();
  options.files["text_encoder"] = clip("x/a.safetensors");
  options.files["text_encoder_2"] = t5("x/b.safetensors");
  options.files["vae"] = vae("y/c.sft");
  EXPECT_EQ(picture(transformer("z/flux.safetensors"), options), reference());
  // The same in diffusers' names, with an encoder taken from a whole model's folder.
  options.files["text_encoder"] = test::plain_pipeline();
  options.files["text_encoder_2"] = test::plain_pipeline() + "/text_encoder_2";
  options.files.erase("tokenizer");
  options.files.erase("tokenizer_2");
  const std::string plain = test::plain_pipeline() + "/transformer/diffusion_pytorch_model.safetensors";
  EXPECT_EQ(picture(plain, options), reference());
  // A GGUF with the prefix of stable-diffusion.cpp.
  const auto source = io::open_tensors(transformer("z/again.safetensors"));
  io::atomic_write(folder_.file("flux.gguf"), test::gguf_of(*source, [](const std::string& name) {
                     return "model.diffusion_model." + name;
                   }));
  EXPECT_EQ(picture(folder_.file("flux.gguf"), options), reference());
  options.files["text_encoder_3"] = "x";
  expect_error(ErrorCode::invalid_argument, {"text_encoder_3", "FLUX.1"},
               [&] { find_model(plain, options); });
}

TEST_F(ModelLayouts, OneFileWithEverything) {
  for (const bool comfy : {true, false}) {
    Tensors all;
    add_part(all, "transformer", "model.diffusion_model.", io::flux1_names());
    add_part(all, "vae", comfy ? "vae." : "first_stage_model.", io::vae_names(2));
    add_part(all, "text_encoder", "text_encoders.clip_l.transformer.", io::clip_names());
    add_part(all, "text_encoder_2", "text_encoders.t5xxl.transformer.", io::t5_names());
    const std::string model = io::read_file(kTokenizers + "t5/spiece.model");
    const auto bytes = std::as_bytes(std::span(model));
    all.push_back({"text_encoders.t5xxl.spiece_model",
                   io::FileDType::u8,
                   {static_cast<int64_t>(model.size())},
                   {bytes.begin(), bytes.end()}});
    ModelOptions options = six_tokens();
    options.files["tokenizer"] = kTokenizers + "clip";
    std::vector<std::string> remarks;
    options.remark = [&](const std::string& text) { remarks.push_back(text); };
    EXPECT_EQ(picture(save(folder_.file("all.safetensors"), all), options), reference());
    const auto said = [&](const char* what) {
      return std::any_of(remarks.begin(), remarks.end(),
                         [&](const std::string& r) { return r.find(what) != std::string::npos; });
    };
    EXPECT_TRUE(said("also holds text_encoder, text_encoder_2, vae"));
    EXPECT_TRUE(said("has it inside"));
  }
}

TEST_F(ModelLayouts, ComfyFolders) {
  const std::string file = transformer("ComfyUI/models/diffusion_models/some/flux1-tiny.safetensors");
  const ModelOptions options = six_tokens();
  expect_error(ErrorCode::io, {"--clip_l", "--t5xxl", "--vae", "hf download"},
               [&] { find_model(file, options); });
  clip("ComfyUI/models/text_encoders/clip_l.safetensors");
  t5("ComfyUI/models/text_encoders/t5/t5xxl_fp16.safetensors");
  vae("ComfyUI/models/vae/any name.safetensors");
  // Files of other models, and damaged ones, are no candidates.
  fs::create_directories(folder_.file("ComfyUI/models/clip"));
  fs::copy(test::tiny_pipeline() + "/text_encoder/model.safetensors",
           folder_.file("ComfyUI/models/clip/clip_l_small.safetensors"));
  io::atomic_write(folder_.file("ComfyUI/models/clip/bad.safetensors"), "x");
  expect_error(ErrorCode::io, {"scripts/get-clip-vocabulary", "--tokenizer", "openai/clip-vit-large-patch14"},
               [&] { Pipeline::load(device(), file, options); });
  fs::create_directories(folder_.file("ComfyUI/comfy/text_encoders"));
  fs::copy(kTokenizers + "clip", folder_.file("ComfyUI/comfy/sd1_tokenizer"));
  expect_error(ErrorCode::io, {"--tokenizer_2", "google/t5-v1_1-xxl"},
               [&] { Pipeline::load(device(), file, options); });
  fs::copy(kTokenizers + "t5_json", folder_.file("ComfyUI/comfy/text_encoders/t5_tokenizer"));
  EXPECT_EQ(picture(file, options), reference());
  // A second file of another name isn't taken; one of the same kind of name has to be chosen from.
  clip("ComfyUI/models/clip/other.safetensors");
  EXPECT_EQ(find_model(file, options).files.parts.at("text_encoder").path,
            folder_.file("ComfyUI/models/text_encoders/clip_l.safetensors"));
  t5("ComfyUI/models/clip/t5xxl_fp8.safetensors");
  expect_error(ErrorCode::invalid_argument, {"--t5xxl", "t5xxl_fp16.safetensors", "t5xxl_fp8.safetensors"},
               [&] { find_model(file, options); });
}

TEST_F(ModelLayouts, FilesOfOneFolder) {
  ModelOptions options = with_tokenizers();
  transformer("loose/flux1-schnell.safetensors");
  clip("loose/clip_l.safetensors");
  t5("loose/t5xxl.safetensors");
  vae("loose/ae.safetensors");
  EXPECT_EQ(picture(folder_.file("loose"), options), reference());
  transformer("loose/flux1-dev.safetensors");
  expect_error(ErrorCode::invalid_argument, {"flux1-dev.safetensors", "flux1-schnell.safetensors"},
               [&] { find_model(folder_.file("loose"), options); });
  expect_error(ErrorCode::invalid_argument, {"t5 encoder", "--t5xxl"},
               [&] { find_model(folder_.file("loose/t5xxl.safetensors"), options); });
  expect_error(ErrorCode::format, {"no transformer", "vkflux inspect"}, [&] {
    find_model(
        save(folder_.file("lora.safetensors"), {io::tensor_data("lora_A", {1}, std::vector<float>{1})}),
        options);
  });
  expect_error(ErrorCode::unsupported, {"flux.ckpt", "pickle", "torch.load"}, [&] {
    io::atomic_write(folder_.file("flux.ckpt"), "PK\3\4........");
    find_model(folder_.file("flux.ckpt"), options);
  });
  fs::create_directories(folder_.file("empty"));
  expect_error(ErrorCode::io, {"model_index.json"}, [&] { find_model(folder_.file("empty"), options); });
}

TEST_F(ModelLayouts, HuggingFaceCache) {
  const std::string repository = folder_.file("hub/models--some-lab--FLUX.1-tiny");
  fs::create_directories(repository + "/refs");
  fs::create_directories(repository + "/snapshots");
  fs::copy(test::plain_pipeline(), repository + "/snapshots/0123abcd", fs::copy_options::recursive);
  io::atomic_write(repository + "/refs/main", "0123abcd\n");
  const ModelOptions options = six_tokens();
  EXPECT_EQ(picture("some-lab/FLUX.1-tiny", options), reference());
  EXPECT_EQ(find_model(repository, options).files.folder, repository + "/snapshots/0123abcd");
  EXPECT_EQ(find_model("some-lab/FLUX.1-tiny@0123abcd", options).files.folder,
            repository + "/snapshots/0123abcd");
  expect_error(ErrorCode::io, {"refs/other"}, [&] { find_model("some-lab/FLUX.1-tiny@other", options); });
  expect_error(ErrorCode::io, {"hf download some-lab/FLUX.2", folder_.file("hub")},
               [&] { find_model("some-lab/FLUX.2", options); });
  expect_error(ErrorCode::io, {"hf download some-lab/FLUX.1-tiny", "a.gguf"},
               [&] { find_model("some-lab/FLUX.1-tiny/a.gguf", options); });
  // A file of another repository, and the tokenizers of this one.
  const std::string other = transformer("hub/models--q--flux-gguf/snapshots/7/flux1-tiny.safetensors");
  ModelOptions parts = six_tokens();
  parts.files = {{"text_encoder", clip("clip.safetensors")},
                 {"text_encoder_2", t5("t5.safetensors")},
                 {"vae", vae("vae.safetensors")}};
  EXPECT_EQ(picture("q/flux-gguf/flux1-tiny.safetensors", parts), reference());
  EXPECT_EQ(picture("q/flux-gguf", parts), reference());
  fs::remove_all(repository + "/snapshots/0123abcd/text_encoder_2");
  expect_error(
      ErrorCode::io,
      {"text_encoder_2", "--t5xxl", "hf download some-lab/FLUX.1-tiny --include \"text_encoder_2/*\""},
      [&] { find_model("some-lab/FLUX.1-tiny", options); });
  io::atomic_write(repository + "/refs/main", "../../elsewhere");
  expect_error(ErrorCode::format, {"refs/main"}, [&] { find_model("some-lab/FLUX.1-tiny", options); });
}

TEST_F(ModelLayouts, Variants) {
  const std::string model = folder_.file("model");
  fs::copy(test::plain_pipeline(), model, fs::copy_options::recursive);
  const auto rename = [&](const std::string& from, const std::string& to) {
    fs::rename(model + "/" + from, model + "/" + to);
  };
  rename("vae/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors");
  rename("text_encoder/model.safetensors", "text_encoder/model.fp16-00001-of-00001.safetensors");
  io::Json map;
  const auto shard = io::open_tensors(model + "/text_encoder/model.fp16-00001-of-00001.safetensors");
  for (const auto& [name, info] : shard->tensors())
    map["weight_map"][name] = "model.fp16-00001-of-00001.safetensors";
  io::atomic_write(model + "/text_encoder/model.safetensors.index.fp16.json", map.dump());
  EXPECT_EQ(picture(model, six_tokens()), reference());  // the only files there are
  ModelOptions wanted = six_tokens();
  wanted.variant = "fp16";
  fs::copy(model + "/transformer/diffusion_pytorch_model.safetensors",
           model + "/transformer/diffusion_pytorch_model.fp16.safetensors");
  EXPECT_EQ(find_model(model, wanted).files.parts.at("transformer").path,
            model + "/transformer/diffusion_pytorch_model.fp16.safetensors");
  EXPECT_EQ(find_model(model, six_tokens()).files.parts.at("transformer").path, model + "/transformer");
  EXPECT_EQ(picture(model, wanted), reference());
  wanted.variant = "bf16";
  expect_error(ErrorCode::io, {"variant", "bf16"}, [&] { find_model(model, wanted); });
}

TEST_F(ModelLayouts, DefaultsFollowGuidance) {
  ModelOptions options;
  options.files = with_tokenizers().files;
  options.files["text_encoder"] = clip("clip.safetensors");
  options.files["text_encoder_2"] = t5("t5.safetensors");
  options.files["vae"] = vae("vae.safetensors");
  const std::string schnell = transformer("schnell.safetensors");
  Tensors dev;
  add_part(dev, "transformer", "", io::flux1_names());
  const std::vector<float> some(16 * 256, 0.01f);
  for (const auto& [name, width] : {std::pair{"in", 256}, {"out", 16}}) {
    const std::string layer = std::string("guidance_in.") + name + "_layer.";
    dev.push_back(io::tensor_data(layer + "weight", {16, width}, std::span(some).first(16u * width)));
    dev.push_back(io::tensor_data(layer + "bias", {16}, std::span(some).first(16)));
  }
  const auto a = Pipeline::load(device(), schnell, options);
  EXPECT_EQ(a->info().defaults.txt_tokens, 256);
  EXPECT_EQ(a->info().defaults.steps, 4);
  EXPECT_FALSE(a->info().schedule.dynamic);
  const auto b = Pipeline::load(device(), save(folder_.file("dev.safetensors"), dev), options);
  EXPECT_EQ(b->info().defaults.txt_tokens, 512);
  EXPECT_EQ(b->info().defaults.steps, 28);
  EXPECT_TRUE(b->info().schedule.dynamic);
  options.text_tokens = 5000;
  expect_error(ErrorCode::invalid_argument, {"5000"}, [&] { Pipeline::load(device(), schnell, options); });
}

}  // namespace
}  // namespace vkflux
