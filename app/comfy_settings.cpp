// ComfyUI's graphs: what the nodes before the sampler say.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "app/picture_settings.h"
#include "model/io/json.h"

namespace vkflux {
namespace {

using io::Json;

constexpr int kMostHops = 64;  // between nodes: a graph may go round in circles
constexpr size_t kMostNodes = 20000;

/// A graph in the form that ComfyUI runs: nodes by id, with a class and inputs that are values or links
/// [id, output].
class Graph {
 public:
  explicit Graph(const Json& nodes) : nodes_(nodes) {}

  const Json& nodes() const { return nodes_; }
  static std::string type(const Json& node) {
    const auto it = node.is_object() ? node.find("class_type") : node.end();
    return node.is_object() && it != node.end() && it->is_string() ? it->get<std::string>() : "";
  }
  /// The value of an input; null: there is none.
  static const Json& input(const Json& node, const std::string& name) {
    static const Json none;
    if (!node.is_object()) return none;
    const auto inputs = node.find("inputs");
    if (inputs == node.end() || !inputs->is_object()) return none;
    const auto it = inputs->find(name);
    return it == inputs->end() ? none : *it;
  }
  /// The node that a link comes from; null: it is no link.
  const Json& source(const Json& value) const {
    static const Json none;
    if (!value.is_array() || value.size() != 2 || !(value[0].is_string() || value[0].is_number()))
      return none;
    const std::string id = value[0].is_string() ? value[0].get<std::string>() : io::json_text(value[0]);
    const auto it = nodes_.find(id);
    return it == nodes_.end() ? none : *it;
  }
  /// A value, through nodes that only hand one on (primitives, texts).
  Json value(const Json& node, const std::string& name) const {
    const Json* found = &input(node, name);
    for (int hop = 0; hop < kMostHops; ++hop) {
      const Json& from = source(*found);
      if (from.is_null()) return *found;
      const Json* next = nullptr;
      for (const char* held : {"value", "text", "string", "seed", "noise_seed", "int", "float"}) {
        const Json& v = input(from, held);
        if (!v.is_null() && !next) next = &v;
      }
      if (!next) return {};
      found = next;
    }
    return {};
  }

 private:
  const Json& nodes_;
};

/// The graph of the editor as the one that is run: values lie in an order that only the class tells.
Json run_form(const Json& workflow) {
  static const std::map<std::string, std::vector<const char*>> orders{
      {"KSampler", {"seed", "", "steps", "cfg", "sampler_name", "scheduler", "denoise"}},
      {"KSamplerAdvanced",
       {"add_noise", "noise_seed", "", "steps", "cfg", "sampler_name", "scheduler", "start_at_step",
        "end_at_step"}},
      {"RandomNoise", {"noise_seed", ""}},
      {"CLIPTextEncode", {"text"}},
      {"CLIPTextEncodeFlux", {"clip_l", "t5xxl", "guidance"}},
      {"FluxGuidance", {"guidance"}},
      {"EmptyLatentImage", {"width", "height", "batch_size"}},
      {"EmptySD3LatentImage", {"width", "height", "batch_size"}},
      {"BasicScheduler", {"scheduler", "steps", "denoise"}},
      {"KSamplerSelect", {"sampler_name"}},
      {"CFGGuider", {"cfg"}},
      {"PrimitiveNode", {"value"}},
      {"PrimitiveInt", {"value"}},
      {"PrimitiveFloat", {"value"}},
      {"PrimitiveString", {"value"}},
      {"PrimitiveStringMultiline", {"value"}}};
  Json out = Json::object();
  if (!workflow.is_object() || !workflow.contains("nodes") || !workflow["nodes"].is_array()) return out;
  std::map<std::string, Json> links;  // by id: the node and output that each begins at
  if (workflow.contains("links") && workflow["links"].is_array()) {
    for (const Json& l : workflow["links"]) {
      if (l.is_array() && l.size() >= 3 && links.size() < kMostNodes)
        links[io::json_text(l[0])] = Json::array({io::json_text(l[1]), l[2]});
      if (l.is_object() && l.contains("id") && l.contains("origin_id"))
        links[io::json_text(l["id"])] = Json::array({io::json_text(l["origin_id"]), 0});
    }
  }
  for (const Json& n : workflow["nodes"]) {
    if (!n.is_object() || !n.contains("id") || !n.contains("type") || !n["type"].is_string()) continue;
    if (out.size() >= kMostNodes) break;
    Json inputs = Json::object();
    const auto order = orders.find(n["type"].get<std::string>());
    if (order != orders.end() && n.contains("widgets_values") && n["widgets_values"].is_array()) {
      const Json& values = n["widgets_values"];
      for (size_t i = 0; i < std::min(values.size(), order->second.size()); ++i) {
        if (*order->second[i]) inputs[order->second[i]] = values[i];
      }
    }
    if (n.contains("inputs") && n["inputs"].is_array()) {
      for (const Json& in : n["inputs"]) {
        if (!in.is_object() || !in.contains("name") || !in["name"].is_string() || !in.contains("link"))
          continue;
        const auto link = links.find(io::json_text(in["link"]));
        if (link != links.end()) inputs[in["name"].get<std::string>()] = link->second;
      }
    }
    out[io::json_text(n["id"])] = {{"class_type", n["type"]}, {"inputs", inputs}};
  }
  return out;
}

class ComfyReader {
 public:
  ComfyReader(const Graph& graph, PictureSettings& out) : graph_(graph), out_(out) {}

  void read() {
    const Json* best = nullptr;
    int samplers = 0;
    for (const auto& [id, node] : graph_.nodes().items()) {
      if (!is_sampler(node)) continue;
      ++samplers;
      // The one that begins from nothing draws the picture; others refine it.
      if (!best || (!from_nothing(*best) && from_nothing(node))) best = &node;
    }
    if (!best) {
      out_.left.push_back(
          "its graph has no sampler that is known here (KSampler, KSamplerAdvanced, SamplerCustom, "
          "SamplerCustomAdvanced)");
      return;
    }
    if (samplers > 1)
      out_.left.push_back(fmt::format("its graph has {} samplers: one was followed", samplers));
    out_.set("--noise", "mersenne");  // ComfyUI draws noise on the CPU
    sampler(*best);
  }

 private:
  static bool is_sampler(const Json& node) {
    static const std::set<std::string> types{"KSampler", "KSamplerAdvanced", "SamplerCustom",
                                             "SamplerCustomAdvanced"};
    return types.count(Graph::type(node)) != 0;
  }
  bool from_nothing(const Json& node) const {
    return Graph::type(graph_.source(Graph::input(node, "latent_image"))).starts_with("Empty");
  }
  /// Takes an input over as a flag.
  void take(const Json& node, const char* input, const char* flag) {
    const Json value = graph_.value(node, input);
    if (value.is_string()) out_.set(flag, value.get<std::string>());
    if (value.is_number()) out_.set(flag, io::json_text(value));
    if (value.is_structured() || (value.is_null() && !Graph::input(node, input).is_null()))
      out_.left.push_back(fmt::format("{} of {} comes from a node that isn't known here", input,
                                      io::shown(Graph::type(node))));
  }
  void named(const Json& node, const char* input, const char* flag, std::string (*ours)(std::string_view)) {
    const Json value = graph_.value(node, input);
    if (!value.is_string()) return;
    const std::string theirs = value.get<std::string>(), name = ours(theirs);
    if (theirs == "normal") return;  // what is done anyway
    if (name.empty()) {
      out_.left.push_back(fmt::format("{} {} has no counterpart here", input, io::shown(theirs)));
    } else {
      out_.set(flag, name);
    }
  }
  void strength(const Json& node) {
    const Json value = graph_.value(node, "denoise");
    if (value.is_number() && value != 1) out_.set("--strength", io::json_text(value));
  }
  void sampler(const Json& node) {
    take(node, "seed", "--seed");
    take(node, "noise_seed", "--seed");
    take(node, "steps", "--steps");
    take(node, "cfg", "--cfg");
    named(node, "sampler_name", "--sampler", sampler_flag);
    named(node, "scheduler", "--schedule", schedule_flag);
    strength(node);
    const Json& noise = graph_.source(Graph::input(node, "noise"));
    if (!noise.is_null()) take(noise, "noise_seed", "--seed");
    const Json& chosen = graph_.source(Graph::input(node, "sampler"));
    if (!chosen.is_null()) named(chosen, "sampler_name", "--sampler", sampler_flag);
    const Json& sigmas = graph_.source(Graph::input(node, "sigmas"));
    if (!sigmas.is_null()) {
      take(sigmas, "steps", "--steps");
      named(sigmas, "scheduler", "--schedule", schedule_flag);
      strength(sigmas);
    }
    const Json& guider = graph_.source(Graph::input(node, "guider"));
    const Json& texts = guider.is_null() ? node : guider;
    if (!guider.is_null()) take(guider, "cfg", "--cfg");
    for (const char* side : {"positive", "conditioning", "cond1"})
      conditioning(graph_.source(Graph::input(texts, side)), "--prompt");
    for (const char* side : {"negative", "cond2"})
      conditioning(graph_.source(Graph::input(texts, side)), "--negative");
    latent(graph_.source(Graph::input(node, "latent_image")));
  }
  void conditioning(const Json& from, const char* flag) {
    const bool positive = std::string_view(flag) == "--prompt";
    const Json* node = &from;
    for (int hop = 0; hop < kMostHops && !node->is_null(); ++hop) {
      const std::string type = Graph::type(*node);
      if (positive) take_guidance(*node, type);
      if (type == "ConditioningZeroOut") return;
      for (const char* text : {"text", "t5xxl", "clip_l", "prompt"}) {
        if (Graph::input(*node, text).is_null()) continue;
        take(*node, text, flag);
        return;
      }
      const Json* next = &graph_.source(Graph::input(*node, "conditioning"));
      if (next->is_null()) next = &graph_.source(Graph::input(*node, positive ? "positive" : "negative"));
      if (next->is_null()) break;
      const std::string over = fmt::format("the node {} was passed over", io::shown(type));
      if (type != "FluxGuidance" && std::find(out_.left.begin(), out_.left.end(), over) == out_.left.end())
        out_.left.push_back(over);
      node = next;
    }
    if (!from.is_null()) out_.left.push_back(fmt::format("no text was found for {}", flag));
  }
  void take_guidance(const Json& node, const std::string& type) {
    if (type == "FluxGuidance" || type == "CLIPTextEncodeFlux") take(node, "guidance", "--guidance");
  }
  void latent(const Json& node) {
    const Json width = graph_.value(node, "width"), height = graph_.value(node, "height");
    if (width.is_number_integer() && height.is_number_integer()) {
      out_.set("--size", io::json_text(width) + "x" + io::json_text(height));
    } else if (!node.is_null()) {
      out_.left.push_back(fmt::format("its picture begins with {}: give --size, or --init for image to image",
                                      io::shown(Graph::type(node))));
    }
    const Json batch = graph_.value(node, "batch_size");
    if (batch.is_number_integer() && batch != 1)
      out_.left.push_back(
          "it is one of a batch, whose pictures ComfyUI gives noise of one stream: only the first "
          "has the noise of --seed");
  }

  const Graph& graph_;
  PictureSettings& out_;
};

}  // namespace

PictureSettings comfy_settings(const std::string& json, bool workflow) {
  PictureSettings out{"ComfyUI", {}, {}};
  Json nodes = io::parse_json(json, workflow ? "its text \"workflow\"" : "its text \"prompt\"");
  if (workflow) nodes = run_form(nodes);
  if (!nodes.is_object() || nodes.size() > kMostNodes) {
    out.left.push_back("its graph is no JSON object of nodes");
    return out;
  }
  const Graph graph(nodes);
  ComfyReader(graph, out).read();
  constexpr size_t kMostSentences = 32;
  if (out.left.size() > kMostSentences) out.left.resize(kMostSentences);
  return out;
}

}  // namespace vkflux
