#include <fmt/format.h>

#include "app/cli/cli.h"
#include "app/cli/model_flags.h"
#include "app/sweep/prompt_list.h"
#include "model/family.h"
#include "model/io/json.h"
#include "model/model_files.h"
#include "model/text/tokenizer_byte_bpe.h"

namespace vkflux::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string model;
  ModelFlags parts;
  std::vector<std::string> prompts;
  std::string alone, texts;  // a tokenizer without a model, and a file of texts
  bool plain = false;
};

/// The ids of each text by a tokenizer alone.
int run_alone(const Common& common, const Options& o) {
  std::vector<std::string> texts = o.prompts;
  // As they are, whatever is in them: a tokenizer is to be tried.
  const Json listed = o.texts.empty() ? Json::array() : io::read_json(o.texts);
  for (const Json& text : listed) {
    if (!listed.is_array() || !text.is_string())
      throw Error(ErrorCode::format, fmt::format("{}: expected a JSON array of texts", o.texts));
    texts.push_back(text.get<std::string>());
  }
  if (texts.empty()) throw Error(ErrorCode::invalid_argument, "no text: give --prompt TEXT or --texts FILE");
  const bool tensors = o.alone.ends_with(".safetensors") || o.alone.ends_with(".gguf");
  const std::shared_ptr<const ByteBpe> inside =
      tensors ? byte_bpe_of_tensors(o.alone) : load_byte_bpe(o.alone);
  if (!inside)
    throw Error(ErrorCode::format, fmt::format("{}: there is no byte-level BPE tokenizer inside", o.alone));
  Json all = Json::array();
  for (const std::string& text : texts) {
    const std::vector<int32_t> ids = inside->ids(text, !o.plain);
    if (!common.json) {
      print_out("{}\n", text);
      for (const int32_t id : ids) print_out("    {:>6}  {}\n", id, inside->piece(id));
    }
    all.push_back(ids);
  }
  if (common.json) print_out("{}\n", io::json_text(Json{{"ids", all}}));
  return kOk;
}

/// What one encoder is given of a prompt, and which of its tokens don't fit.
Json tokenized(const PromptTokenizer& t, const std::string& prompt) {
  const std::vector<int32_t> content = t.tokenizer->tokenize(prompt);
  const size_t room = t.tokenizer->room(t.length), kept = std::min(room, content.size());
  const auto listed = [&](size_t from, size_t to) {
    Json out{{"ids", Json::array()}, {"pieces", Json::array()}};
    for (size_t i = from; i < to; ++i) {
      out["ids"].push_back(content[i]);
      out["pieces"].push_back(t.tokenizer->piece(content[i]));
    }
    return out;
  };
  Json out{{"name", t.name}, {"length", t.length}, {"room", room}, {"tokens", content.size()}};
  out.update(listed(0, kept));
  out["cut"] = listed(kept, content.size());
  out["encoded"] = t.tokenizer->encode(prompt, t.length);
  return out;
}

void print(const Json& encoder) {
  const auto& cut = encoder["cut"];
  print_out("  {}: {} of at most {} tokens", encoder["name"].get<std::string>(),
            encoder["tokens"].get<size_t>(), encoder["room"].get<size_t>());
  if (!cut["ids"].empty()) print_out(", the last {} are cut", cut["ids"].size());
  print_out("\n");
  for (const Json* part : {&encoder, &cut}) {
    for (size_t i = 0; i < (*part)["ids"].size(); ++i)
      print_out("    {:>6}  {}{}\n", (*part)["ids"][i].get<int32_t>(),
                (*part)["pieces"][i].get<std::string>(), part == &cut ? "   (cut)" : "");
  }
}

int run(const Common& common, const Options& o) {
  for (const std::string& prompt : o.prompts) check_text("--prompt", prompt);
  if (!o.alone.empty()) return run_alone(common, o);
  if (o.model.empty() || o.prompts.empty())
    throw Error(ErrorCode::invalid_argument,
                o.model.empty() ? "--model or --bpe is needed" : "--prompt is needed");
  const ErrorContext context(o.model);
  const ModelOptions options = model_options("f32", o.parts);
  const FoundModel found = find_model(o.model, options);
  if (!found.family->tokenizers)
    throw Error(ErrorCode::unsupported,
                fmt::format("models of the family {} have no tokenizers", found.family->title));
  const std::vector<PromptTokenizer> tokenizers = found.family->tokenizers(found.files, options);
  Json all = Json::array();
  for (const std::string& prompt : o.prompts) {
    Json encoders = Json::array();
    for (const PromptTokenizer& t : tokenizers) encoders.push_back(tokenized(t, prompt));
    if (!common.json) {
      print_out("{}\n", prompt);
      for (const Json& encoder : encoders) print(encoder);
    }
    all.push_back({{"prompt", prompt}, {"encoders", std::move(encoders)}});
  }
  if (common.json) print_out("{}\n", io::json_text(Json{{"prompts", all}}, 1));
  return kOk;
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto common = std::make_shared<Common>();
  auto o = std::make_shared<Options>();
  CLI::App* c =
      add_command(app, "tokenize", "show the tokens of a prompt for each text encoder, and what is cut",
                  "vkflux tokenize --model models/emoji --prompt \"red apple\"", common,
                  [common, o] { return run(*common, *o); });
  add_model_options(*c, o->model, o->parts, false);
  add_reading_options(*c, o->parts);
  c->add_option("--prompt", o->prompts, "what to tokenize (repeatable)")->allow_extra_args(false);
  CLI::Option* alone =
      c->add_option("--bpe", o->alone,
                    "in place of --model a byte-level BPE tokenizer alone: a folder or file (tokenizer.json, "
                    "vocab.json with "
                    "merges.txt, tekken.json), or a .safetensors or .gguf file that has one inside");
  alone->excludes("--model");
  c->add_option("--texts", o->texts, "with --bpe: a JSON array of texts")->needs(alone);
  c->add_flag("--plain", o->plain, "with --bpe: special tokens that a text names are plain text")
      ->needs(alone);
}

}  // namespace vkflux::cli
