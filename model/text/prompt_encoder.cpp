#include "model/text/prompt_encoder.h"

#include <fmt/format.h>

#include <algorithm>

#include "autograd/ops.h"
#include "vk/error.h"

namespace vkflux {
namespace {

/// What FLUX.2 dev was trained to be told first.
constexpr std::string_view kSystem =
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation.";

struct Around {
  std::string before, after;
};
const Around& published(PromptKind kind) {
  static const Around mistral{fmt::format("<s>[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT][INST]", kSystem), "[/INST]"};
  static const Around qwen3{"<|im_start|>user\n",
                            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"};
  return kind == PromptKind::mistral ? mistral : qwen3;
}

/// A prompt without what counts as a picture there.
std::string cleaned(PromptKind kind, std::string_view prompt) {
  std::string out(prompt);
  constexpr std::string_view kPicture = "[IMG]";
  if (kind != PromptKind::mistral) return out;
  std::string kept;
  for (size_t at = 0;;) {
    const size_t found = out.find(kPicture, at);
    kept += out.substr(at, found - at);
    if (found == std::string::npos) return kept;
    at = found + kPicture.size();
  }
}

/// Stands for a prompt where its own characters mustn't mix with the template's.
constexpr std::string_view kPlace = "\uE000prompt\uE001";

}  // namespace

std::vector<int64_t> published_states(PromptKind kind) {
  return kind == PromptKind::mistral ? std::vector<int64_t>{10, 20, 30} : std::vector<int64_t>{9, 18, 27};
}

std::vector<int64_t> prompt_states(const io::Json& section, const std::string& origin,
                                   const std::vector<int64_t>& fallback) {
  if (!section.is_object() || !section.contains("text_states") || section["text_states"].is_null())
    return fallback;
  const io::Json& listed = section["text_states"];
  std::vector<int64_t> out;
  for (const io::Json& n : listed) {
    if (!listed.is_array() || !io::holds<int64_t>(n)) break;
    out.push_back(n.get<int64_t>());
  }
  constexpr size_t kMost = 64;
  if (!listed.is_array() || out.empty() || out.size() != listed.size() || out.size() > kMost)
    throw Error(ErrorCode::format,
                fmt::format("{}: \"text_states\" is {}, expected a list of 1 to {} layer numbers", origin,
                            io::shown(io::json_text(listed)), kMost));
  return out;
}

ChatTokenizer::ChatTokenizer(std::shared_ptr<const ByteBpe> bpe, PromptKind kind, bool special_in_prompt)
    : bpe_(std::move(bpe)), kind_(kind), special_in_prompt_(special_in_prompt) {
  const ByteBpeModel& model = bpe_->model();
  if (!model.chat_template.empty()) template_ = std::make_unique<const ChatTemplate>(model.chat_template);
  const std::string pad = !model.pad.empty()            ? model.pad
                          : kind == PromptKind::mistral ? "<pad>"
                                                        : "<|endoftext|>";
  const std::optional<int32_t> id = bpe_->find(pad);
  if (!id)
    throw Error(ErrorCode::format,
                fmt::format("tokenizer: the padding token \"{}\" isn't in its vocabulary", io::shown(pad)));
  pad_ = *id;
  end_ = bpe_->find(model.end).value_or(pad_);
  pad_left_ = model.pad_left.value_or(kind == PromptKind::mistral);
  cut_left_ = model.cut_left.value_or(false);
}

std::string ChatTokenizer::rendered(const std::string& prompt) const {
  const ByteBpeModel& model = bpe_->model();
  io::Json variables{{"tools", nullptr}, {"documents", nullptr}};
  for (const auto& [name, token] :
       {std::pair{"bos_token", &model.start}, {"eos_token", &model.end}, {"pad_token", &model.pad}}) {
    if (!token->empty()) variables[name] = *token;
  }
  const auto message = [](const char* role, const io::Json& content) {
    return io::Json{{"role", role}, {"content", content}};
  };
  const auto parts = [](const std::string& text) {
    return io::Json::array({io::Json{{"type", "text"}, {"text", text}}});
  };
  if (kind_ == PromptKind::mistral) {
    variables["messages"] =
        io::Json::array({message("system", parts(std::string(kSystem))), message("user", parts(prompt))});
    variables["add_generation_prompt"] = false;
  } else {
    variables["messages"] = io::Json::array({message("user", prompt)});
    variables["add_generation_prompt"] = true;
    variables["enable_thinking"] = false;
  }
  return template_->render(variables);
}

std::vector<int32_t> ChatTokenizer::whole(std::string_view raw) const {
  if (raw.size() > kMaxTextBytes)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("text of {} bytes; a prompt has at most {}", raw.size(), kMaxTextBytes));
  const std::string prompt = cleaned(kind_, raw);
  std::vector<int32_t> ids;
  std::string text;
  if (!template_) {
    const Around& a = published(kind_);
    text = a.before;
    ids = bpe_->ids({{a.before, true}, {prompt, special_in_prompt_}, {a.after, true}});
  } else if (special_in_prompt_) {
    text = rendered(prompt);
    ids = bpe_->ids(text);
  } else {
    text = rendered(std::string(kPlace));
    const size_t at = text.find(kPlace);
    if (at == std::string::npos || text.find(kPlace, at + 1) != std::string::npos)
      throw Error(ErrorCode::unsupported,
                  "the chat template doesn't hold the prompt once, so it can't be plain text");
    const std::string_view view(text);
    ids = bpe_->ids({{view.substr(0, at), true}, {prompt, false}, {view.substr(at + kPlace.size()), true}});
  }
  const ByteBpeModel& model = bpe_->model();
  if (kind_ == PromptKind::mistral && !model.start.empty() && text.starts_with(model.start)) return ids;
  std::vector<int32_t> out(model.before.begin(), model.before.end());
  out.insert(out.end(), ids.begin(), ids.end());
  out.insert(out.end(), model.after.begin(), model.after.end());
  return out;
}

// How many ids stand before and behind a prompt's own.
std::pair<size_t, size_t> ChatTokenizer::around() const {
  const std::vector<int32_t> a = whole("a"), b = whole("+");
  size_t front = 0, back = 0;
  while (front < std::min(a.size(), b.size()) && a[front] == b[front]) ++front;
  while (back + front < std::min(a.size(), b.size()) && a[a.size() - 1 - back] == b[b.size() - 1 - back])
    ++back;
  return {front, back};
}

std::vector<int32_t> ChatTokenizer::tokenize(std::string_view text) const {
  const auto [front, back] = around();
  const std::vector<int32_t> ids = whole(text);
  const size_t from = std::min(front, ids.size()),
               to = std::max(from, ids.size() - std::min(back, ids.size()));
  return {ids.begin() + static_cast<ptrdiff_t>(from), ids.begin() + static_cast<ptrdiff_t>(to)};
}

size_t ChatTokenizer::room(int length) const {
  const size_t front = around().first;
  return static_cast<size_t>(std::max(length, 0)) - std::min(static_cast<size_t>(std::max(length, 0)), front);
}

std::vector<int32_t> ChatTokenizer::encode(std::string_view text, int length) const {
  return tokens({std::string(text)}, length).ids[0];
}

DecoderTokens ChatTokenizer::tokens(const std::vector<std::string>& prompts, int length) const {
  if (length < 1)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("tokens of a prompt: length {}; expected at least 1", length));
  const auto n = static_cast<size_t>(length);
  DecoderTokens out;
  for (const std::string& prompt : prompts) {
    std::vector<int32_t> ids = whole(prompt);
    if (ids.size() > n)
      ids.erase(cut_left_ ? ids.begin() : ids.begin() + length, cut_left_ ? ids.end() - length : ids.end());
    std::vector<uint8_t> mask(ids.size(), 1);
    ids.insert(pad_left_ ? ids.begin() : ids.end(), n - ids.size(), pad_);
    mask.insert(pad_left_ ? mask.begin() : mask.end(), n - mask.size(), 0);
    out.ids.push_back(std::move(ids));
    out.mask.push_back(std::move(mask));
  }
  return out;
}

Tensor encode_prompts(const DecoderLm& model, const DecoderTokens& tokens, const std::vector<int64_t>& states,
                      Trace* trace) {
  const auto joined = [&](const DecoderTokens& t) { return op::concat(model.forward(t, states, trace), 2); };
  // Columns of the same padding in every text, in front.
  size_t padding = tokens.mask.empty() || tokens.ids.empty() ? 0 : tokens.ids[0].size();
  for (size_t b = 0; b < tokens.mask.size(); ++b) {
    size_t n = 0;
    while (n < padding && tokens.mask[b][n] == 0 && tokens.ids[b][n] == tokens.ids[0][0]) ++n;
    padding = n;
  }
  if (padding < 2) return joined(tokens);
  const size_t skipped = padding - 1;
  DecoderTokens rest = tokens;
  rest.first_position += static_cast<int64_t>(skipped);
  for (auto& row : rest.ids) row.erase(row.begin(), row.begin() + static_cast<ptrdiff_t>(skipped));
  for (auto& row : rest.mask) row.erase(row.begin(), row.begin() + static_cast<ptrdiff_t>(skipped));
  const Tensor x = joined(rest);
  const Tensor row = op::narrow(x, 1, 0, 1);
  return op::concat({op::expand(row, {x.dim(0), static_cast<int64_t>(skipped), x.dim(2)}), x}, 1);
}

}  // namespace vkflux
