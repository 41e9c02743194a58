#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <map>
#include <optional>

#include "app/cli/cli.h"
#include "app/cli/numbers.h"
#include "app/loras.h"
#include "app/outputs.h"
#include "app/weights.h"
#include "model/convert.h"
#include "model/convert_lora.h"
#include "model/io/json.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> files;
  std::string type, layout, part, made_up;
  LoraArgs loras;
  uint64_t seed = 0;
  MadeUpSizes sizes;
};

bool in_diffusers_names(const io::TensorSource& file) {
  for (const auto& [name, info] : file.tensors()) {
    for (const char* mark : {"transformer_blocks.", "down_blocks.", "up_blocks."}) {
      if (name.find(mark) != std::string::npos) return true;
    }
  }
  return false;
}

void print(const Converted& c, const ModelPartFile& part, const std::string& out) {
  print_out("{}: {}, {} tensors, {:.1f} MB\n", out, part.name, c.tensors, static_cast<double>(c.bytes) / 1e6);
  for (const auto& [type, row] : c.types)
    print_out("  {:8} {:5} tensors, {:.1f} MB\n", type, row.first, static_cast<double>(row.second) / 1e6);
}

int run(const Common& common, const Options& o) {
  const size_t needed = o.made_up.empty() ? 2 : 1;
  if (o.files.size() != needed)
    throw Error(ErrorCode::invalid_argument,
                needed == 2 ? "convert needs two files, IN and OUT (or --synthetic and OUT)"
                            : "with --synthetic nothing is read: give one file, OUT");
  const std::string& out = o.files.back();
  ConvertOptions options;
  options.gguf = out.ends_with(".gguf");
  if (!options.gguf && !out.ends_with(".safetensors"))
    throw Error(
        ErrorCode::invalid_argument,
        fmt::format("{}: what is written is known by its name, which must end in .safetensors or .gguf",
                    out));
  if (!o.type.empty()) options.type = weight_type(o.type);
  FileUse use;
  if (needed == 2) use.reads("IN", o.files[0]);
  o.loras.declare(use);
  use.writes("OUT", out);
  use.check();

  std::unique_ptr<io::TensorSource> file;
  std::optional<io::NamedTensors> named;
  std::unique_ptr<WeightSource> source;
  ModelPartFile part;
  if (needed == 2) {
    file = io::open_tensors(o.files[0]);
    for (const std::string& warning : file->warnings()) spdlog::warn("{}", warning);
    part = part_of_file(*file, o.part);
    named.emplace(*file, part.names);
    source = weights_of(*named);
  } else {
    part = made_up_part(o.made_up, o.sizes);
    source = random_weights(part, o.seed);
  }
  LoraSet loras;
  std::unique_ptr<WeightSource> plain;
  if (!o.loras.uses.empty()) {
    if (part.lora.empty())
      throw Error(ErrorCode::invalid_argument,
                  fmt::format("--lora: {} is no part that LoRA files change", part.name));
    loras = LoraSet(o.loras.uses, part.lora, [](const std::string& text) { spdlog::info("{}", text); });
    plain = std::move(source);
    source = merged_weights(*plain, loras, part.name);
  }
  const bool diffusers = file && !options.gguf && in_diffusers_names(*file);
  options.layout = !o.layout.empty() ? o.layout : diffusers ? "diffusers" : "bfl";
  std::optional<Progress> progress;
  int64_t shown = -1;  // megabytes
  options.progress = [&](uint64_t done, uint64_t total) {
    constexpr uint64_t kMega = 1'000'000;
    const auto now = static_cast<int64_t>(done / kMega);
    if (progress && now == shown) return;
    if (!progress) progress.emplace("converting, MB", static_cast<int64_t>(total / kMega));
    progress->update(shown = now);
  };
  const Converted c = convert(part, *source, out, options);
  progress.reset();
  for (const std::string& remark : c.remarks) spdlog::info("{}", remark);
  if (named && !named->mixed().empty()) spdlog::info("{}", named->mixed());
  if (!common.json) {
    print(c, part, out);
    return kOk;
  }
  Json j{{"out", out},
         {"part", part.name},
         {"layout", options.layout},
         {"tensors", c.tensors},
         {"bytes", c.bytes}};
  for (const auto& [type, row] : c.types) j["types"][type] = {{"tensors", row.first}, {"bytes", row.second}};
  j["remarks"] = c.remarks;
  print_out("{}\n", io::json_text(j, 2));
  return kOk;
}

}  // namespace

void add_convert(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c = add_command(app, "convert", "write a part of a model in another type, layout or container",
                            "vkflux convert flux1-dev.safetensors flux1-dev-q4_k.gguf --type q4_k", common,
                            [common, o] { return run(*common, *o); });
  c->add_option(
       "files", o->files,
       "IN and OUT: a .safetensors file, an index of shards, a .gguf file or a folder; and a .safetensors or "
       ".gguf file")
      ->required()
      ->expected(1, 2);
  c->add_option(
       "--type", o->type,
       "of the matrices: f32, f16, bf16; f8 (E4M3) in .safetensors; q8_0, q4_k and the other blocks in "
       ".gguf. "
       "What everything passes through stays in 16 bits, modulation in q8_0 or more; default: as each "
       "is stored")
      ->check(CLI::IsMember(weight_type_names()));
  c->add_option("--layout", o->layout,
                "names of the tensors: bfl (the original's) or diffusers; default: IN's, in .gguf bfl")
      ->check(CLI::IsMember({"bfl", "diffusers"}));
  c->add_option("--part", o->part,
                "of a file that holds several: transformer, text_encoder (CLIP), text_encoder_2 "
                "(T5) or vae")
      ->check(CLI::IsMember({"transformer", "text_encoder", "text_encoder_2", "vae"}));
  add_lora_option(*c, o->loras);
  CLI::Option* made_up = c->add_option("--synthetic", o->made_up,
                                       "no IN: random weights of this size (" +
                                           fmt::format("{}", fmt::join(made_up_parts(), ", ")) +
                                           "; ae2 is FLUX.2's autoencoder), to try a machine with")
                             ->check(CLI::IsMember(made_up_parts()));
  c->add_option("--seed", o->seed, "of --synthetic")
      ->capture_default_str()
      ->transform(any_seed())
      ->needs(made_up);
  c->add_option("--depth", o->sizes.depth,
                "of --synthetic: double blocks of the transformer, layers of an encoder")
      ->transform(whole(1, kMostLayers))
      ->needs(made_up);
  c->add_option("--depth-single", o->sizes.depth_single, "of --synthetic: single blocks of the transformer")
      ->transform(whole(1, kMostLayers))
      ->needs(made_up);
}

}  // namespace vkflux::cli
