#include "model/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "model/family.h"
#include "model/io/file.h"
#include "model/io/hugging_face.h"
#include "model/io/json.h"
#include "model/part_search.h"
#include "vk/error.h"

namespace vkflux {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndex = "model_index.json";

std::string parent_of(const std::string& path) {
  std::error_code ignored;
  fs::path whole = fs::absolute(path, ignored).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();
  return whole.parent_path().string();
}

bool is_pipeline_folder(const std::string& path) {
  return io::is_folder(path) && io::is_there(path + "/" + std::string(kIndex));
}

[[noreturn]] void no_such_model(const std::string& name) {
  const io::HubName hub = io::parse_hub_name(name);
  const std::string cache = io::hugging_face_cache();
  const std::string hint =
      hub.name.empty() || cache.empty()
          ? ""
          : fmt::format(
                "; nor is {} in the Hugging Face cache {}: if it is a repository there, {} "
                "brings it",
                hub.name, cache, io::hub_download(hub.name, hub.file));
  throw Error(ErrorCode::io, fmt::format("no such folder or file{}; a model is a folder in diffusers' layout "
                                         "({} beside transformer/, vae/ and so on), a .safetensors or .gguf "
                                         "file, or a repository in the Hugging Face cache",
                                         hint, kIndex));
}

/// config.json beside a file with the name that diffusers gives it, or of a folder; else empty.
std::string config_beside(const std::string& path) {
  if (io::is_folder(path)) return path + "/config.json";
  const std::string name = io::last_name(path);
  if (!name.starts_with("diffusion_pytorch_model") && !name.starts_with("model")) return {};
  const std::string config = parent_of(path) + "/config.json";
  return io::is_there(config) ? config : std::string();
}

class Finder {
 public:
  Finder(const std::string& model, const ModelOptions& options) : options_(options) {
    out_.files.name = model;
  }

  FoundModel operator()() {
    const std::string path = io::located(out_.files.name);
    if (!io::is_there(path)) no_such_model(out_.files.name);
    if (path != out_.files.name) remark(fmt::format("{} is {}", out_.files.name, path));
    if (io::is_folder(path)) io::folder_entries(path);  // says why it can't be listed
    if (is_pipeline_folder(path)) {
      from_folder(path);
    } else {
      from_file(io::is_folder(path) ? transformer_of(path) : path);
    }
    if (!options_.variant.empty() && !out_.family->parts.empty() && !variant_seen_)
      throw Error(ErrorCode::io, fmt::format("no part of it has files of the variant \"{}\", such as {}",
                                             options_.variant, "model." + options_.variant + ".safetensors"));
    return std::move(out_);
  }

 private:
  using Candidate = PartSearch::Candidate;

  void remark(const std::string& text) { out_.files.remarks.push_back(text); }
  const PartKind& backbone() const { return out_.family->parts.front(); }
  const std::string* flag(std::string_view part) const {
    const auto own = options_.files.find(std::string(part));
    return own == options_.files.end() ? nullptr : &own->second;
  }

  void check_flags() const {
    for (const auto& [part, file] : options_.files) {
      const auto is = [p = std::string_view(part)](const PartKind& k) { return k.name == p; };
      const auto& tokenizers = out_.family->tokenizer_names;
      if (std::none_of(out_.family->parts.begin(), out_.family->parts.end(), is) &&
          std::find(tokenizers.begin(), tokenizers.end(), part) == tokenizers.end())
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("{}: {} has no part \"{}\"", file, out_.family->title, part));
    }
  }

  /// A folder of one part, with the files of the variant that is wanted.
  ModelFiles::Part folder_part(const std::string& folder) {
    ModelFiles::Part part{folder, folder + "/config.json"};
    io::folder_entries(folder);  // says why it can't be listed
    const std::string& wanted = options_.variant;
    try {
      const std::string file = io::find_checkpoint(folder, wanted);
      if (!wanted.empty() || !has_plain_name(file)) part.path = file;
      variant_seen_ = variant_seen_ || !wanted.empty();
      if (wanted.empty() && part.path == file)
        remark(
            fmt::format("{}: there are only files of a variant, {} is taken", folder, io::last_name(file)));
    } catch (const Error&) {  // loading says what is missing; another part may have the variant
      if (!wanted.empty())
        remark(fmt::format("{}: it has no files of the variant \"{}\", its plain ones are taken", folder,
                           wanted));
    }
    return part;
  }
  static bool has_plain_name(const std::string& file) {
    const std::string name = io::last_name(file);
    const std::string_view rest = name.starts_with("model")
                                      ? std::string_view(name).substr(5)
                                      : std::string_view(name).substr(std::min(name.size(), size_t{23}));
    return rest == ".safetensors" || rest == ".safetensors.index.json";
  }

  /// A part that a flag names: a file, the part's folder, or the folder of a whole model that has it.
  ModelFiles::Part own_part(const PartKind& kind, const std::string& named) {
    const std::string path = io::located(named);
    if (!io::is_folder(path)) return {path, config_beside(path)};
    const std::string below = path + "/" + std::string(kind.name);
    if (is_pipeline_folder(path) && io::is_folder(below)) {
      out_.files.neighbours.push_back(path);
      return folder_part(below);
    }
    if (io::is_there(path + "/config.json")) {
      out_.files.neighbours.push_back(parent_of(path));
      return folder_part(path);
    }
    PartSearch search;
    search.add_folder(path, 2);
    const std::vector<Candidate> found = search.candidates(kind, nullptr);
    if (found.empty()) return folder_part(path);
    const Candidate& one = choose(kind, found);
    return {one.path, config_beside(one.path)};
  }

  void take_tokenizers(const std::string& folder) {
    for (const std::string_view name : out_.family->tokenizer_names) {
      const std::string key(name);
      if (const std::string* own = flag(name)) {
        out_.files.tokenizers[key] = io::located(*own);
      } else if (!folder.empty() && io::is_there(folder + "/" + key)) {
        out_.files.tokenizers[key] = folder + "/" + key;
      }
    }
  }

  void from_folder(const std::string& folder) {
    const std::string index = folder + "/" + std::string(kIndex);
    out_.family = &family_of_index(index);
    check_flags();
    ModelFiles& files = out_.files;
    files.folder = folder;
    files.index = index;
    files.scheduler = folder + "/scheduler/scheduler_config.json";
    PartSearch loose;
    std::vector<std::string> missing;
    for (const PartKind& kind : out_.family->parts) {
      const std::string name(kind.name), below = folder + "/" + name;
      if (const std::string* own = flag(kind.name)) {
        files.parts[name] = own_part(kind, *own);
      } else if (io::is_folder(below)) {
        files.parts[name] = folder_part(below);
      } else {
        if (loose.folders().empty()) loose.add_folder(folder, 0);
        const std::vector<Candidate> found = loose.candidates(kind, nullptr);
        if (found.empty()) {
          missing.push_back(name);
          continue;
        }
        take(kind, choose(kind, found));
      }
    }
    if (!missing.empty()) refuse_incomplete(folder, missing);
    take_tokenizers(folder);
  }

  [[noreturn]] void refuse_incomplete(const std::string& folder,
                                      const std::vector<std::string>& missing) const {
    std::vector<std::string> flags, patterns;
    for (const PartKind& kind : out_.family->parts) {
      if (std::find(missing.begin(), missing.end(), kind.name) == missing.end()) continue;
      flags.push_back(fmt::format("{} FILE", kind.flag));
      patterns.push_back(fmt::format("\"{}/*\"", kind.name));
    }
    const std::string hub = io::hub_name_of(folder);
    throw Error(ErrorCode::io,
                fmt::format("the folder has no {}/: {}{}", fmt::join(missing, "/, no "),
                            hub.empty() ? ""
                                        : fmt::format("hf download {} --include {} brings it, or ", hub,
                                                      fmt::join(patterns, " --include ")),
                            fmt::format("give {}", fmt::join(flags, " "))));
  }

  static const Family& family_of_index(const std::string& path) {
    const std::string origin(kIndex);
    const io::Json index = io::read_json(path);
    const auto type = io::get_or<std::string>(index, "_class_name", "FluxPipeline", origin);
    std::vector<std::string_view> known;
    for (const Family& f : families()) {
      if (f.pipeline(type)) return f;
      known.push_back(f.title);
    }
    throw Error(ErrorCode::unsupported, fmt::format("{}: the pipeline is {}; known are those of {}", origin,
                                                    type, fmt::join(known, ", ")));
  }

  /// The one file of a folder that holds a transformer.
  static std::string transformer_of(const std::string& folder) {
    const auto is_part = [&](std::string_view stem) {
      return io::is_there(folder + "/" + std::string(stem));
    };
    if (is_part("config.json")) return folder;
    for (const std::string& entry : io::folder_entries(folder)) {
      if (is_pipeline_folder(entry))
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("there is no {} in this folder, but in {}: name that one", kIndex, entry));
    }
    PartSearch search;
    // What lies in folders of parts without the index that names them isn't guessed at.
    const auto is_part_of = [&](const Family& family) {
      return !family.parts.empty() && io::is_folder(folder + "/" + std::string(family.parts.front().name));
    };
    const bool lost_index = std::any_of(families().begin(), families().end(), is_part_of);
    search.add_folder(folder, lost_index ? 0 : 2);
    std::vector<Candidate> found;
    for (const Family& family : families()) {
      if (family.parts.empty()) continue;
      for (Candidate& c : search.candidates(family.parts.front(), nullptr)) found.push_back(std::move(c));
    }
    if (found.size() == 1) return found.front().path;
    std::vector<std::string> names;
    for (const Candidate& c : found) names.push_back(fs::path(c.path).lexically_relative(folder).string());
    if (found.empty())
      throw Error(
          ErrorCode::io,
          fmt::format("there is no {}, and no file with a transformer; a model is a folder in "
                      "diffusers' layout ({} beside transformer/, vae/, text_encoder/, text_encoder_2/, "
                      "tokenizer/, tokenizer_2/ and scheduler/), or a .safetensors or .gguf file{}",
                      kIndex, kIndex, reasons(search)));
    throw Error(ErrorCode::invalid_argument,
                fmt::format("several files of this folder hold a transformer: name one of {}",
                            fmt::join(names, ", ")));
  }

  static std::string reasons(const PartSearch& search) {
    std::vector<std::string> why = search.unreadable();
    if (why.empty()) return {};
    constexpr size_t kMost = 3;
    const size_t more = why.size() - std::min(why.size(), kMost);
    why.resize(why.size() - more);
    return fmt::format("; not read: {}{}", fmt::join(why, "; "),
                       more ? fmt::format("; and {} more", more) : "");
  }

  void from_file(const std::string& path) {
    const std::unique_ptr<io::TensorSource> file = io::open_tensors(path);
    for (const Family& family : families()) {
      if (family.parts.empty()) continue;
      transformer_ = described(family.parts.front(), *file);
      if (transformer_.is_null()) continue;
      out_.family = &family;
      break;
    }
    if (!out_.family) refuse_other_kind(path, *file);
    check_flags();
    ModelFiles& files = out_.files;
    files.parts[std::string(backbone().name)] = {path, config_beside(path)};
    std::vector<const PartKind*> missing;
    std::vector<std::string> together;
    for (const PartKind& kind : out_.family->parts) {
      const std::string name(kind.name);
      if (const std::string* own = flag(kind.name)) {
        files.parts[name] = own_part(kind, *own);
        if (&kind == &backbone()) transformer_ = described(kind, *io::open_tensors(files.parts[name].path));
      } else if (&kind != &backbone() && !described(kind, *file).is_null()) {
        files.parts[name] = {path, ""};
        together.push_back(name);
      } else if (&kind != &backbone()) {
        missing.push_back(&kind);
      }
    }
    if (!together.empty()) remark(fmt::format("{} also holds {}", path, fmt::join(together, ", ")));
    search_around(path, missing);
    take_tokenizers("");
  }

  [[noreturn]] static void refuse_other_kind(const std::string& path, const io::TensorSource& file) {
    for (const Family& family : families()) {
      for (const PartKind& kind : family.parts) {
        if (described(kind, file).is_null()) continue;
        throw Error(ErrorCode::invalid_argument,
                    fmt::format("this is the {}: give it as {} {}, and the transformer as --model",
                                kind.kind.name, kind.flag, path));
      }
    }
    throw Error(ErrorCode::format,
                "it holds no transformer of a known kind (vkflux inspect says what a file holds)");
  }

  /// The folder models/ of ComfyUI that a file lies in, else empty.
  static std::string comfy_models(const std::string& path) {
    std::string at = parent_of(path);
    for (int up = 0; up < 4 && !at.empty() && at != "/"; ++up, at = parent_of(at)) {
      const std::string name = io::last_name(at);
      if (name == "diffusion_models" || name == "unet" || name == "checkpoints") return parent_of(at);
    }
    return {};
  }

  void search_around(const std::string& path, const std::vector<const PartKind*>& missing) {
    const std::string models = comfy_models(path);
    if (!models.empty()) out_.files.neighbours.push_back(parent_of(models) + "/comfy");
    if (io::is_folder(path)) out_.files.neighbours.push_back(parent_of(path));
    if (missing.empty()) return;
    std::vector<std::string> nothing, looked;
    std::string why;
    for (const PartKind* kind : missing) {
      PartSearch search;
      for (const std::string_view folder : kind->folders) {
        if (!models.empty()) search.add_folder(models + "/" + std::string(folder), 3);
      }
      if (models.empty()) search.add_folder(parent_of(path), 0);
      const std::string beside = parent_of(path) + "/../" + std::string(kind->name);
      if (io::is_folder(path)) search.add_folder(fs::path(beside).lexically_normal().string(), 0);
      search.leave_out(path);
      std::vector<Candidate> found = search.candidates(*kind, &backbone());
      if (out_.family->fits)
        std::erase_if(found, [&](const Candidate& c) {
          return !out_.family->fits(transformer_, kind->name, c.config);
        });
      for (const std::string& folder : search.folders()) {
        if (std::find(looked.begin(), looked.end(), folder) == looked.end()) looked.push_back(folder);
      }
      if (found.empty()) {
        nothing.push_back(fmt::format("{} ({} FILE; {})", kind->kind.name, kind->flag, kind->download));
        if (why.empty()) why = reasons(search);
      } else {
        take(*kind, choose(*kind, found));
      }
    }
    if (nothing.empty()) return;
    throw Error(
        ErrorCode::io,
        fmt::format("this file is a transformer without {}{}{}", fmt::join(nothing, ", without "),
                    looked.empty() ? "" : fmt::format("; looked in {}", fmt::join(looked, ", ")), why));
  }

  void take(const PartKind& kind, const Candidate& one) {
    out_.files.parts[std::string(kind.name)] = {one.path, config_beside(one.path)};
    remark(fmt::format("{}: {} was found", kind.name, one.path));
  }

  static const Candidate& choose(const PartKind& kind, const std::vector<Candidate>& found) {
    if (found.size() == 1) return found.front();
    std::vector<std::string> names;
    const Candidate* usual = nullptr;
    size_t usuals = 0;
    for (const Candidate& c : found) {
      names.push_back(c.path);
      if (c.usual) usual = &c, ++usuals;
    }
    if (usuals == 1) return *usual;
    throw Error(ErrorCode::invalid_argument,
                fmt::format("several files could be the {}: choose with {} one of {}", kind.kind.name,
                            kind.flag, fmt::join(names, ", ")));
  }

  const ModelOptions& options_;
  FoundModel out_;
  io::Json transformer_;
  bool variant_seen_ = false;
};

}  // namespace

FoundModel find_model(const std::string& model, const ModelOptions& options) {
  return Finder(model, options)();
}

}  // namespace vkflux
