// The files of a checkpoint folder, each damaged while the others are good, and files of students.
#include <filesystem>

#include "model/attention/hkr/students.h"
#include "model/io/file.h"
#include "model/pipeline.h"
#include "model/routing/controller.h"
#include "model/sampler/latents_file.h"
#include "model/sampler/scheduler_config.h"
#include "model/text/decoder.h"
#include "model/vae/load.h"
#include "model/vae/tiny.h"
#include "tests/harness/gpu.h"
#include "tests/harness/loaders.h"
#include "tests/harness/temp_folder.h"
#include "tests/harness/tiny_checkpoint.h"
#include "tests/harness/tiny_pipeline.h"

namespace vkflux::test {
namespace {

namespace fs = std::filesystem;

// A good folder, made once for the program.
const std::string& checkpoint() {
  static const TempFolder folder;
  static const bool written = (write_tiny_checkpoint(folder.path()), true);
  (void)written;
  return folder.path();
}

void copy_checkpoint(const std::string& folder) {
  fs::copy(checkpoint(), folder, fs::copy_options::recursive | fs::copy_options::overwrite_existing);
}

// The folder that a file of this relative name lies in.
std::string root(const std::string& path, const std::string& file_name) {
  return path.substr(0, path.size() - file_name.size() - 1);
}

using Use = std::function<void(Pipeline&)>;

LoaderCase part(const std::string& name, const std::string& file, const Use& use) {
  LoaderCase c{name, file, {io::read_file(checkpoint() + "/" + file)}};
  c.load = [file, use](const std::string& path) { use(*Pipeline::load(device(), root(path, file))); };
  c.prepare = copy_checkpoint;
  c.rounds = 120;
  if (file.ends_with(".safetensors")) c.repair = repair_safetensors;
  return c;
}

const BackboneLayout kModel = tiny_student_model();

// Params without tensors as the entries of a file.
void append(const std::vector<Param>& params, const std::string& prefix, std::vector<io::TensorData>& out) {
  for (const Param& p : params) {
    const std::vector<float> values(static_cast<size_t>(p.shape.numel()), 0.25f);
    out.push_back(io::tensor_data(prefix + p.name, {p.shape.begin(), p.shape.end()}, values));
  }
}

std::string file_of(const std::vector<io::TensorData>& tensors,
                    const std::map<std::string, std::string>& metadata) {
  const TempFolder folder;
  io::write_safetensors(folder.file("x"), tensors, metadata);
  return io::read_file(folder.file("x"));
}

LoaderCase students() {
  HkrConfig config;
  config.head_dim = 16;
  config.feature_dim = config.hidden = 32;
  config.layers = 2;
  HkrLayer layer(config);
  std::vector<io::TensorData> tensors;
  for (const char* prefix : {"layers.single:0.", "layers.single:2."})
    append(parameters(layer), prefix, tensors);
  const std::string fields =
      R"({"feature_dim":32,"landmark_fraction":0.1,"landmark_min":4,"gamma":2.0,)"
      R"("qk_norm":true,"model":{"family":"flux1","head_dim":16,"heads":1},)"
      R"("layer_specs":{"single:0":{"num_heads":1,"head_dim":16}},)"
      R"("layer_readiness":{"single:0":{"ema_loss":0.1,"update_count":30,"ready":true}},)"
      R"("layer_ready":{"single:2":false},"layer_last_loss":{"single:2":"nan"}})";
  LoaderCase c{"students",
               "students.safetensors",
               {file_of(tensors, {{"format", "flux2_ttr_v2"}, {"alpha_format", "logit"}, {"ttr", fields}}),
                file_of(tensors, {{"alpha_max", "0.3"}, {"layer_ema_loss", R"({"single:0":0.5})"}})}};
  c.load = [](const std::string& path) {
    const Students s = load_students(device(), path, kModel);
    std::vector<io::TensorData> again;
    std::map<std::string, std::string> metadata;
    append_students(s, io::FileDType::f32, again, metadata);
  };
  c.repair = repair_safetensors;
  c.mismatch = "belong to another transformer";
  c.rounds = 300;
  return c;
}

// All parts in one file, found and opened as a model.
LoaderCase whole_file() {
  std::vector<io::TensorData> all;
  for (const auto& [part, prefix] : {std::pair{"transformer", "model.diffusion_model."},
                                     {"vae", "first_stage_model."},
                                     {"text_encoder", "text_encoders.clip_l.transformer."},
                                     {"text_encoder_2", "text_encoders.t5xxl.transformer."}}) {
    const auto source = io::open_tensors(checkpoint() + "/" + part);
    for (const auto& [name, info] : source->tensors())
      all.push_back({prefix + name, info.dtype, info.shape, source->read_bytes(name)});
  }
  LoaderCase c{"whole_file", "all.safetensors", {file_of(all, {})}};
  c.load = [](const std::string& path) {
    ModelOptions options;
    options.text_tokens = 6;
    options.files = {{"tokenizer", checkpoint() + "/tokenizer"},
                     {"tokenizer_2", checkpoint() + "/tokenizer_2"}};
    Pipeline::load(device(), path, options)->encode({"a cat"});
  };
  c.repair = repair_safetensors;
  c.mismatch = "give it as";
  c.rounds = 120;
  return c;
}

LoaderCase controller() {
  ControllerConfig config;
  config.layers = static_cast<int64_t>(kModel.replaceable().size());
  config.embed_dim = 8;
  config.hidden_dim = 16;
  ControllerNet net(config);
  std::vector<io::TensorData> tensors;
  append(parameters(net), "", tensors);
  LoaderCase c{"controller",
               "controller.safetensors",
               {file_of(tensors, {{"format", "flux2_ttr_controller_v1"},
                                  {"num_layers", "3"},
                                  {"embed_dim", "8"},
                                  {"model", R"({"family":"flux1","head_dim":16,"single_blocks":3})"}})}};
  c.load = [](const std::string& path) { load_controller(device(), path, kModel); };
  c.repair = repair_safetensors;
  c.mismatch = "belong to another transformer";
  c.rounds = 300;
  return c;
}

LoaderCase latents() {
  const std::vector<float> values(128, 0.5f);
  LoaderCase c{"latents",
               "latents.safetensors",
               {file_of({io::tensor_data("latents", {1, 4, 4, 8}, values),
                         io::tensor_data("sigmas", {2}, std::vector<float>{1, 0})},
                        {{"width", "16"}, {"height", "8"}, {"prompts", "[\"a cat\"]"}}),
                file_of({io::tensor_data("x", {1, 8, 16}, values)}, {{"width", "16"}, {"height", "8"}})}};
  c.load = [](const std::string& path) { read_latents(device(), path, LatentKind::latents, {4, 2}, 2); };
  c.repair = repair_safetensors;
  return c;
}

LoaderCase schedulers() {
  LoaderCase c{
      "schedulers",
      "scheduler_config.json",
      {R"({"_class_name":"DPMSolverMultistepScheduler","use_flow_sigmas":true,"solver_order":3,)"
       R"("prediction_type":"flow_prediction","final_sigmas_type":"sigma_min","beta_start":0.0001,)"
       R"("beta_schedule":"scaled_linear","trained_betas":null,"flow_shift":3.0})",
       R"({"_class_name":"UniPCMultistepScheduler","use_flow_sigmas":true,"solver_order":3,)"
       R"("prediction_type":"flow_prediction","disable_corrector":[0,2],"use_dynamic_shifting":true})",
       R"({"use_karras_sigmas":true,"shift_terminal":0.1,"time_shift_type":"linear","sigma_min":0.01,)"
       R"("use_dynamic_shifting":true,"base_shift":0.5,"max_shift":1.15,"num_train_timesteps":1000})",
       R"({"_class_name":"FlowMatchLCMScheduler","scale_factors":[],"upscale_mode":null})"}};
  c.load = [](const std::string& path) {
    const auto config = SchedulerConfig::from_json(io::read_json(path));
    const std::vector<double> levels = config.schedule.levels(4, 16);
    config.schedule.times(levels);
    Solver(config.solver, levels);
  };
  c.mismatch = "has no step";
  return c;
}

LoaderCase tiny_autoencoder() {
  const std::string file =
      std::string(VKFLUX_SOURCE_DIR) + "/tests/data/edit/taesd/diffusion_pytorch_model.safetensors";
  LoaderCase c{"tiny_autoencoder", "tiny.safetensors", {io::read_file(file)}};
  c.load = [](const std::string& path) { load_tiny_codec(device(), path, 4, 2); };
  c.repair = repair_safetensors;
  c.rounds = 120;
  return c;
}

const std::string kDecoders = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/decoders/";

void use_decoder(const std::string& path) {
  const auto file = io::open_tensors(path);
  DecoderLm model(decoder_config(*file, {}));
  const io::NamedTensors named(*file, io::decoder_names(*file));
  check(parameters(model), named);
  named.read_f32("model.layers.0.self_attn.q_proj.weight");
}

void use_decoder_config(const std::string& path) {
  const io::Json json = io::read_json(path);
  const bool mistral = io::get_or<std::string>(json, "model_type", "", path) == "mistral";
  const auto file =
      io::open_tensors(kDecoders + (mistral ? "mistral_window" : "qwen3_windows") + ".safetensors");
  DecoderLm model(decoder_config(*file, json));
}

std::vector<std::string> decoder_configs() {
  std::vector<std::string> out;
  for (const char* name : {"mistral_window", "qwen3_windows"})
    out.push_back(io::open_tensors(kDecoders + name + ".safetensors")->metadata().at("config"));
  return out;
}

}  // namespace

std::vector<LoaderCase> model_loaders() {
  const Use nothing = [](Pipeline&) {}, transformer = [](Pipeline&p) { p.backbone(); },
            autoencoder = [](Pipeline&p) { p.codec(); }, encode = [](Pipeline&p) { p.encode({"a cat"}); };
  LoaderCase vae_folder = part("vae_folder", "vae/config.json", {});
  vae_folder.load = [](const std::string& path) {
    load_autoencoder(device(), fs::path(path).parent_path().string());
  };
  return {
      part("pipeline_index", "model_index.json", nothing),
      part("transformer_config", "transformer/config.json", transformer),
      part("vae_config", "vae/config.json", autoencoder),
      part("clip_encoder_config", "text_encoder/config.json", encode),
      part("t5_encoder_config", "text_encoder_2/config.json", encode),
      part("scheduler_config", "scheduler/scheduler_config.json",
           [](Pipeline& p) { p.info().schedule.levels(4, 16); }),
      part("transformer_weights", "transformer/diffusion_pytorch_model.safetensors", transformer),
      part("vae_weights", "vae/diffusion_pytorch_model.safetensors", autoencoder),
      part("clip_encoder_weights", "text_encoder/model.safetensors", encode),
      part("t5_encoder_weights", "text_encoder_2/model.safetensors", encode),
      {"decoder_config", "config.json", decoder_configs(), use_decoder_config},
      {"decoder_weights",
       "model.safetensors",
       {io::read_file(kDecoders + "qwen3_grouped.safetensors"),
        io::read_file(kDecoders + "mistral_window.safetensors")},
       use_decoder,
       repair_safetensors},
      vae_folder,
      whole_file(),
      students(),
      controller(),
      latents(),
      schedulers(),
      tiny_autoencoder(),
  };
}

}  // namespace vkflux::test
