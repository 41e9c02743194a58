// The program as a user meets it: exit codes, help, and JSON on stdout.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "app/cli/cli.h"
#include "model/io/png.h"
#include "model/io/safetensors.h"
#include "tests/app/cli_fixture.h"

namespace vkflux::cli {
namespace {

namespace fs = std::filesystem;
using test::Cli;
using test::Result;
using test::vkflux;

TEST_F(Cli, UsageErrorsExitWith2) {
  EXPECT_EQ(vkflux("").code, kUsage);
  EXPECT_EQ(vkflux("no-such-command").code, kUsage);
  EXPECT_EQ(vkflux("inspect").code, kUsage);
  EXPECT_EQ(vkflux("devices --no-such-flag").code, kUsage);
  EXPECT_EQ(vkflux("verify").code, kUsage);
}

TEST_F(Cli, BadFilesExitWith4) {
  EXPECT_EQ(vkflux("inspect " + path("absent.safetensors")).code, kBadFile);
  EXPECT_EQ(vkflux("inspect " + file("short.safetensors", "abc")).code, kBadFile);
  EXPECT_EQ(
      vkflux("inspect " + file("header.safetensors", std::string("\x10\0\0\0\0\0\0\0not json at all!", 24)))
          .code,
      kBadFile);
  const Result r = vkflux("inspect " + file("huge.safetensors", std::string(8, '\xff')), "2>&1");
  EXPECT_EQ(r.code, kBadFile);
  EXPECT_NE(r.out.find("huge.safetensors"), std::string::npos) << r.out;
}

TEST_F(Cli, UnknownDeviceExitsWith7) {
  const Result r = vkflux("bench --suite ops --device no-such-device", "2>&1");
  EXPECT_EQ(r.code, kNoDevice) << r.out;
  EXPECT_NE(r.out.find("no-such-device"), std::string::npos) << r.out;
}

TEST_F(Cli, EveryCommandShowsAnExample) {
  const Result top = vkflux("--help");
  EXPECT_EQ(top.code, kOk);
  EXPECT_NE(top.out.find("130 interrupted"), std::string::npos);
  for (const char* command :
       {"devices", "inspect", "dataset emoji", "dataset list", "dataset tokenizers", "train autoencoder",
        "train flow", "eval", "sample", "report", "verify", "bench", "tokenize", "convert"}) {
    const Result r = vkflux(std::string(command) + " --help");
    EXPECT_EQ(r.code, kOk) << command;
    EXPECT_NE(r.out.find("Example"), std::string::npos) << command << "\n" << r.out;
    EXPECT_NE(r.out.find("--json"), std::string::npos) << command << "\n" << r.out;
  }
}

TEST_F(Cli, DevicesListsTheOneTheTestsUse) {
  const Result r = vkflux("devices --json");
  ASSERT_EQ(r.code, kOk);
  const auto list = nlohmann::json::parse(r.out);
  ASSERT_TRUE(list.is_array());
  ASSERT_FALSE(list.empty());
  for (const auto& d : list) EXPECT_GT(d.at("max_storage_buffer_range").get<uint64_t>(), 0u);
}

TEST_F(Cli, InspectsWhatItCannotName) {
  io::write_safetensors(path("two.safetensors"),
                        {io::tensor_data("b", {2, 3}, std::vector<float>(6, 1.0f), io::FileDType::f16),
                         io::tensor_data("a", {4}, std::vector<float>(4, 2.0f))},
                        {{"note", "made by a test"}});
  const Result r = vkflux("inspect --json --tensors " + path("two.safetensors"));
  ASSERT_EQ(r.code, kOk);
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_EQ(j.at("kind"), "unknown");
  EXPECT_EQ(j.at("parameters"), 10);
  EXPECT_EQ(j.at("bytes"), 28);
  EXPECT_EQ(j.at("metadata").at("note"), "made by a test");
  EXPECT_EQ(j.at("dtypes").at("F16").at("parameters"), 6);
  ASSERT_EQ(j.at("tensors").size(), 2u);
  EXPECT_EQ(j.at("tensors")[1].at("name"), "b");
  EXPECT_EQ(j.at("tensors")[1].at("shape"), nlohmann::json({2, 3}));
}

/// The weights of a file of test vectors, as the checkpoint they came from.
void write_weights(const std::string& vectors, const std::string& path) {
  const io::SafetensorsFile file(std::string(VKFLUX_SOURCE_DIR) + "/tests/data/" + vectors + ".safetensors");
  std::vector<io::TensorData> out;
  for (const auto& [name, info] : file.tensors()) {
    if (name.starts_with("w."))
      out.push_back({name.substr(2), info.dtype, info.shape, file.read_bytes(name)});
  }
  io::write_safetensors(path, out);
}

TEST_F(Cli, InspectsModelsByTheirTensors) {
  const std::pair<const char*, const char*> cases[] = {{"clip_text", "clip text encoder"},
                                                       {"t5_encoder", "t5 encoder"},
                                                       {"flux_diffusers_names", "flux.1 transformer"},
                                                       {"vae_diffusers_names", "autoencoder"}};
  for (const auto& [vectors, kind] : cases) {
    write_weights(vectors, path("weights.safetensors"));
    const Result r = vkflux("inspect --json " + path("weights.safetensors"));
    ASSERT_EQ(r.code, kOk) << vectors;
    const auto j = nlohmann::json::parse(r.out);
    EXPECT_EQ(j.at("kind"), kind) << vectors;
    EXPECT_TRUE(j.at("config").is_object()) << vectors;
  }
  const auto golden = nlohmann::json::parse(
      vkflux(std::string("inspect --json \"") + VKFLUX_SOURCE_DIR + "/tests/data/clip_text.safetensors\"")
          .out);
  EXPECT_EQ(golden.at("kind").get<std::string>().find("golden case"), 0u);
}

TEST_F(Cli, InspectsAFileOfSeveralParts) {
  std::vector<io::TensorData> all;
  for (const auto& [vectors, prefix] : {std::pair{"flux_diffusers_names", "model.diffusion_model."},
                                        {"vae_diffusers_names", "vae."},
                                        {"clip_text", "text_encoders.clip_l.transformer."}}) {
    write_weights(vectors, path("part.safetensors"));
    const io::SafetensorsFile part(path("part.safetensors"));
    for (const auto& [name, info] : part.tensors())
      all.push_back({prefix + name, info.dtype, info.shape, part.read_bytes(name)});
  }
  io::write_safetensors(path("all.safetensors"), all);
  const Result r = vkflux("inspect --hash --json " + path("all.safetensors"));
  ASSERT_EQ(r.code, kOk);
  auto j = nlohmann::json::parse(r.out);
  ASSERT_EQ(j.at("parts").size(), 3u);
  EXPECT_EQ(j.at("parts")[0].at("kind"), "flux.1 transformer");
  EXPECT_EQ(j.at("parts")[0].at("family"), "FLUX.1");
  EXPECT_EQ(j.at("parts")[0].at("variant"), "dev, Krea or Kontext");
  EXPECT_EQ(j.at("missing"), nlohmann::json({"t5 encoder"}));
  EXPECT_EQ(j.at("layout"), "ComfyUI names, safetensors");
  const Result sum = vkflux("--help >/dev/null; sha256sum " + path("all.safetensors"));
  EXPECT_EQ(j.at("sha256").get<std::string>(), sum.out.substr(0, 64));
  // What is missing of a part, and what is too much.
  std::erase_if(all, [](const auto& t) { return t.name.ends_with("conv_norm_out.bias"); });
  all.push_back(io::tensor_data("vae.decoder.extra", {1}, std::vector<float>{1}));
  io::write_safetensors(path("all.safetensors"), all);
  const Result bad = vkflux("inspect --json " + path("all.safetensors"));
  EXPECT_EQ(bad.code, kBadFile);
  j = nlohmann::json::parse(bad.out);
  for (const char* what : {"missing decoder.norm_out.bias", "unexpected vae.decoder.extra"})
    EXPECT_NE(j.at("parts")[1].at("problem").get<std::string>().find(what), std::string::npos) << what;
}

TEST_F(Cli, InspectsADiffusersFolder) {
  file("model_index.json", R"({"_class_name": "FluxPipeline"})");
  for (const char* part : {"transformer", "vae"}) fs::create_directories(folder_ / part);
  write_weights("flux_diffusers_names", path("transformer/diffusion_pytorch_model.safetensors"));
  write_weights("vae_diffusers_names", path("vae/diffusion_pytorch_model.safetensors"));
  const Result r = vkflux("inspect --json " + folder_.string());
  ASSERT_EQ(r.code, kOk);
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_EQ(j.at("pipeline"), "FluxPipeline");
  EXPECT_EQ(j.at("components").at("transformer").at("kind"), "flux.1 transformer");
  EXPECT_EQ(j.at("components").at("vae").at("kind"), "autoencoder");
  EXPECT_EQ(j.at("parameters"), j["components"]["transformer"]["parameters"].get<int64_t>() +
                                    j["components"]["vae"]["parameters"].get<int64_t>());
}

TEST_F(Cli, SaysWhatIsWrongWithATransformer) {
  io::write_safetensors(path("cut.safetensors"),
                        {io::tensor_data("img_in.weight", {8, 4}, std::vector<float>(32)),
                         io::tensor_data("final_layer.linear.weight", {4, 8}, std::vector<float>(32))});
  const Result r = vkflux("inspect --json " + path("cut.safetensors"));
  EXPECT_EQ(r.code, kBadFile);
  EXPECT_NE(nlohmann::json::parse(r.out).at("problem").get<std::string>().find("missing"), std::string::npos);
}

TEST_F(Cli, InspectsAdaptersAndRefusesIntegers) {
  const auto tensor = [](const char* name, std::vector<int64_t> shape, io::FileDType dtype) {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    return io::TensorData{name, dtype, std::move(shape),
                          std::vector<std::byte>(static_cast<size_t>(n) * io::size_of(dtype))};
  };
  using enum io::FileDType;
  io::write_safetensors(
      path("lora.safetensors"),
      {tensor("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", {4, 16}, f32),
       tensor("transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight", {16, 4}, f32)});
  io::write_safetensors(path("kohya.safetensors"),
                        {tensor("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", {8, 16}, bf16),
                         tensor("lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight", {48, 8}, bf16),
                         tensor("lora_unet_double_blocks_0_img_attn_qkv.alpha", {}, bf16)});
  for (const auto& [name, rank] : {std::pair{"lora.safetensors", 4}, {"kohya.safetensors", 8}}) {
    const Result r = vkflux("inspect --json " + path(name));
    ASSERT_EQ(r.code, kOk) << name;
    const auto j = nlohmann::json::parse(r.out);
    EXPECT_EQ(j.at("kind"), "LoRA") << name;
    EXPECT_EQ(j.at("config").at("layers"), 1) << name;
    EXPECT_EQ(j.at("config").at("ranks"), nlohmann::json({rank})) << name;
  }
  write_weights("flux_diffusers_names", path("f32.safetensors"));
  const io::SafetensorsFile whole(path("f32.safetensors"));
  std::vector<io::TensorData> out;
  for (const auto& [name, info] : whole.tensors())
    out.push_back(tensor(name.c_str(), info.shape, info.shape.size() > 1 ? i8 : f32));
  io::write_safetensors(path("i8.safetensors"), out);
  const Result r = vkflux("inspect --json " + path("i8.safetensors"));
  EXPECT_EQ(r.code, kBadFile);
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_EQ(j.at("kind"), "flux.1 transformer");
  EXPECT_NE(j.at("problem").get<std::string>().find("I8"), std::string::npos) << j.at("problem");
}

TEST_F(Cli, SaysWhatAModelIs) {
  const std::string sample = "sample --prompt x --out " + path("x.png") + " --model ";
  write_weights("clip_text", path("weights.safetensors"));
  Result r = vkflux(sample + path("weights.safetensors"), "2>&1");
  EXPECT_EQ(r.code, kUsage);
  EXPECT_NE(r.out.find("this is the clip text encoder"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("--clip_l"), std::string::npos) << r.out;
  r = vkflux(sample + folder_.string(), "2>&1");
  EXPECT_EQ(r.code, kBadFile);
  EXPECT_NE(r.out.find("no model_index.json"), std::string::npos) << r.out;
  r = vkflux(sample + path("absent"), "2>&1");
  EXPECT_NE(r.out.find("no such folder"), std::string::npos) << r.out;
  fs::create_directories(folder_ / "part");
  fs::rename(path("weights.safetensors"), path("part/model.fp16.safetensors"));
  r = vkflux("inspect " + path("part"), "2>&1");
  EXPECT_EQ(r.code, kOk);
  EXPECT_NE(r.out.find("clip text encoder"), std::string::npos) << r.out;
  fs::copy(path("part/model.fp16.safetensors"), path("part/model.bf16.safetensors"));
  r = vkflux(sample + path("part/model.fp16.safetensors") + " --vae " + path("part"), "2>&1");
  EXPECT_EQ(r.code, kUsage) << r.out;
}

TEST_F(Cli, DatasetListCountsAFolder) {
  EXPECT_EQ(vkflux("dataset list " + path("nothing")).code, kBadFile);
  io::Image8 red{4, 4, std::vector<uint8_t>(64, 200)};
  for (const char* name : {"a", "b"}) {
    io::write_png(path(std::string(name) + ".png"), red);
    file(std::string(name) + ".txt", "red square\nsquare\n");
  }
  const Result r = vkflux("dataset list --captions --json " + folder_.string());
  ASSERT_EQ(r.code, kOk);
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_EQ(j.at("items"), 2);
  EXPECT_EQ(j.at("captions"), 4);
  EXPECT_EQ(j.at("list")[1].at("file"), "b.png");
}

}  // namespace
}  // namespace vkflux::cli
