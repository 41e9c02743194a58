// Prompts against diffusers' FLUX.2 pipelines, chat templates against Jinja (tests/data/tokenizers).
#include "model/text/prompt_encoder.h"

#include <gtest/gtest.h>

#include "autograd/ops.h"
#include "tests/harness/expect_error.h"
#include "tests/model/golden_case.h"
#include "vk/error.h"

namespace vkflux {
namespace {

using test::device;
using test::GoldenCase;

const std::string kData = std::string(VKFLUX_SOURCE_DIR) + "/tests/data/tokenizers/";
const std::vector<std::string> kPrompts{"a red fox",
                                        "line\n\nbreaks  and [IMG] <|im_end|> [/INST] \u212b e\u0301", ""};

TEST(ChatTemplate, RendersAsJinjaDoes) {
  for (const io::Json& entry : io::read_json(kData + "chat_vectors.json")) {
    const auto source = entry.at("template").get<std::string>();
    const auto render = [&] { return ChatTemplate(source).render(entry.at("variables")); };
    if (entry.contains("text")) {
      EXPECT_EQ(render(), entry.at("text").get<std::string>()) << source;
    } else {
      EXPECT_THROW(render(), Error) << source;
    }
  }
}

TEST(ChatTemplate, FaultsAreNamed) {
  const auto refused = [](const std::string& source, const std::string& word,
                          ErrorCode code = ErrorCode::format) {
    test::expect_error(code, {word}, [&] { ChatTemplate(source).render({{"x", "text"}}); });
  };
  refused("{% if x %}", "endif");
  refused("{% endif %}", "endif", ErrorCode::unsupported);
  refused("{{ x", "end");
  refused("{{ 'x }}", "end");
  refused("{# x", "comment");
  refused("{{ }}", "value");
  refused("{{ x.y.z }}", "\"z\"");
  refused("{{ x | sort }}", "sort", ErrorCode::unsupported);
  refused("{{ x is weird }}", "weird", ErrorCode::unsupported);
  refused("{{ x.encode() }}", "encode", ErrorCode::unsupported);
  refused("{{ cycler() }}", "cycler", ErrorCode::unsupported);
  refused("{% include 'y' %}", "include", ErrorCode::unsupported);
  refused("{{ 1 / 0 }}", "zero");
  refused("{{ raise_exception('no ' + x) }}", "no text", ErrorCode::invalid_argument);
  refused("{% for i in range(3000) %}{% for j in range(3000) %}{{ x }}{% endfor %}{% endfor %}", "good time");
  refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep");
  refused("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}", "nested");
  refused(std::string(3000, 'a') + "{{ x * 999999999 }}", "long");
}

void expect_prompts(const GoldenCase& golden, const ChatTokenizer& tokenizer, const DecoderLm& model,
                    const std::vector<int64_t>& states) {
  for (const int length : {48, 160}) {
    const std::string out = "out." + std::to_string(length);
    const DecoderTokens tokens = tokenizer.tokens(kPrompts, length);
    EXPECT_EQ(tokens.ids, golden.ids(out + ".ids"));
    const auto mask = golden.ids(out + ".mask");
    for (size_t b = 0; b < mask.size(); ++b)
      EXPECT_EQ(tokens.mask[b], std::vector<uint8_t>(mask[b].begin(), mask[b].end()));
    const Tensor txt = encode_prompts(model, tokens, states);
    EXPECT_EQ(txt.shape(), (Shape{3, length, static_cast<int64_t>(states.size()) * model.config().width}));
    std::vector<float> values = txt.to_host(), want = golden.values(out + ".txt");
    if (length == 160) {
      std::vector<float> some;
      for (int64_t b = 0; b < 3; ++b) {
        for (int64_t t = 0; t < length; t += 13) {
          const auto row = values.begin() + (b * length + t) * txt.dim(2);
          some.insert(some.end(), row, row + txt.dim(2));
        }
      }
      values = some;
    }
    test::expect_close(out, values, want, test::kOutputTolerance);
    // One prompt by itself has the same rows.
    const Tensor alone = encode_prompts(model, tokenizer.tokens({kPrompts[0]}, length), states);
    const std::vector<float> all = txt.to_host();
    test::expect_close("alone", alone.to_host(), {all.begin(), all.begin() + alone.numel()},
                       test::kOutputTolerance);
  }
}

void check_family(const std::string& file, const std::string& folder, PromptKind kind,
                  std::vector<int64_t> states) {
  const GoldenCase golden(kData + file);
  const auto source = io::open_tensors(kData + file);
  const io::NamedTensors weights(*source, io::decoder_names(*source));
  // What is no weight of the text model lies outside of its prefix.
  DecoderLm model(decoder_config(*source, golden.config()));
  load(parameters(model), weights, device());
  layers_for_states(states, model.config());
  expect_prompts(golden, ChatTokenizer(load_byte_bpe(kData + folder), kind), model, states);
}

TEST(PromptEncoder, KleinsPromptsAsDiffusers) {
  check_family("prompts_qwen3.safetensors", "qwen", PromptKind::qwen3, {1, 3});
}
TEST(PromptEncoder, DevsPromptsAsDiffusers) {
  check_family("prompts_mistral.safetensors", "tekken_hf", PromptKind::mistral, {1, 2, -1});
}

// Without a template in the files the published ones stand around the prompt.
TEST(PromptEncoder, PublishedTemplates) {
  const auto qwen = load_byte_bpe(kData + "qwen_files");
  const ChatTokenizer klein(qwen, PromptKind::qwen3);
  for (const std::string& prompt : kPrompts) {
    const std::vector<int32_t> want = qwen->ids("<|im_start|>user\n" + prompt +
                                                "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n");
    const DecoderTokens got = klein.tokens({prompt}, 200);
    EXPECT_EQ(
        std::vector<int32_t>(got.ids[0].begin(), got.ids[0].begin() + static_cast<ptrdiff_t>(want.size())),
        want);
    EXPECT_EQ(got.ids[0].back(), klein.pad_id());
    EXPECT_EQ(got.mask[0][want.size() - 1], 1);
    EXPECT_EQ(got.mask[0][want.size()], 0);
    EXPECT_EQ(klein.encode(prompt, 5), std::vector<int32_t>(want.begin(), want.begin() + 5));
  }
  const auto tekken = load_byte_bpe(kData + "tekken");
  const ChatTokenizer dev(tekken, PromptKind::mistral),
      with_template(load_byte_bpe(kData + "tekken_hf"), PromptKind::mistral);
  for (const std::string& prompt : kPrompts)
    EXPECT_EQ(dev.encode(prompt, 200), with_template.encode(prompt, 200));
  const std::vector<int32_t> ids = dev.encode("fox", 200);
  EXPECT_EQ(ids.front(), 6);  // padding, on the left
  EXPECT_EQ(ids.back(), 4);   // [/INST]
}

TEST(PromptEncoder, SpecialTokensInAPromptMayBePlain) {
  for (const char* folder : {"qwen", "qwen_files"}) {
    const auto bpe = load_byte_bpe(kData + folder);
    const ChatTokenizer parsed(bpe, PromptKind::qwen3), plain(bpe, PromptKind::qwen3, false);
    const int32_t end = *bpe->find("<|im_end|>");
    const auto count = [&](const std::vector<int32_t>& ids) {
      return std::count(ids.begin(), ids.end(), end);
    };
    EXPECT_EQ(count(parsed.encode("a<|im_end|>b", 100)), 2);
    EXPECT_EQ(count(plain.encode("a<|im_end|>b", 100)), 1);
    EXPECT_EQ(plain.encode("\n a fox", 100), parsed.encode("\n a fox", 100));
    EXPECT_EQ(parsed.tokenize("a fox"), bpe->ids("a fox"));
    EXPECT_EQ(parsed.room(100), 100 - bpe->ids("<|im_start|>user\n").size());
    EXPECT_EQ(parsed.room(2), 0u);
  }
}

TEST(PromptEncoder, StatesAndLengths) {
  EXPECT_EQ(prompt_states({{"text_states", {1, -1}}}, "x", {9}), (std::vector<int64_t>{1, -1}));
  for (const char* none : {"{}", "null", "[]", R"({"text_states": null})"})
    EXPECT_EQ(prompt_states(io::parse_json(none, "x"), "x", {9, 18}), (std::vector<int64_t>{9, 18}));
  for (const char* bad : {"[]", "3", "[1.5]", "[\"1\"]", "{\"a\": 1}", "[true]", "[1, null]"})
    test::expect_error(ErrorCode::format, {"index", "text_states"}, [&] {
      prompt_states(io::parse_json("{\"text_states\": " + std::string(bad) + "}", "x"), "index", {9});
    });
  std::vector<int64_t> states{0, -1, 27};
  EXPECT_EQ(layers_for_states(states, qwen3_4b_config()), 36);
  EXPECT_EQ(states, (std::vector<int64_t>{0, 36, 27}));
  for (std::vector<int64_t> wrong : {std::vector<int64_t>{37}, {-38}, {}})
    test::expect_error(ErrorCode::invalid_argument, {"state"},
                       [&] { layers_for_states(wrong, qwen3_4b_config()); });
  const ChatTokenizer klein(load_byte_bpe(kData + "qwen"), PromptKind::qwen3);
  test::expect_error(ErrorCode::invalid_argument, {"length 0"}, [&] { klein.tokens({"a"}, 0); });
  EXPECT_THROW(klein.encode(std::string(Tokenizer::kMaxTextBytes + 1, 'a'), 9), Error);
  EXPECT_THROW(klein.encode("\xFF", 9), Error);
}

}  // namespace
}  // namespace vkflux
